"""Rot is found and set aside; pins wait for the bytes to come back."""

import pytest

from kuber.domain.blob import Rot
from kuber.domain.knowledge import TensorSpec
from kuber.errors import KnowledgeNotFoundError
from kuber.services.vault_scrub import scrub


@pytest.fixture
def weights(safetensors):
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(8,))}, fill=fill)


@pytest.mark.parametrize("fault", ["damaged", "lost"])
def test_sets_the_rotten_aside(vault_store, tmp_path, weights, fault):
    sound, rotten = vault_store.put(weights(1)), vault_store.put(weights(2))
    vault_store.pin("record", [("weights", rotten), ("weights", sound)])
    path = vault_store.shelves.path(rotten.digest)
    damaged = weights(3)
    path.write_bytes(damaged) if fault == "damaged" else path.unlink()
    found = scrub(vault_store)
    assert found.rotten == (Rot(digest=rotten.digest, fault=fault, holders=1),)
    assert (found.blobs, found.cursor) == (2, None)
    with pytest.raises(KnowledgeNotFoundError):
        vault_store.get(rotten.digest)
    aside = tmp_path / "vault" / "quarantine" / rotten.digest.hex
    assert aside.exists() == (fault == "damaged")
    assert not aside.exists() or aside.read_bytes() == damaged
    vault_store.put(weights(2))
    assert vault_store.pinned(rotten.digest) == ["record"]
    assert scrub(vault_store).rotten == ()
    assert vault_store.get(sound.digest) == weights(1)


def test_goes_through_everything_in_stretches(vault_store, weights):
    stored = [vault_store.put(weights(fill)) for fill in range(7)]
    cursor, seen, stretches = None, 0, 0
    while True:
        part = scrub(vault_store, limit=3, stretch=2 * stored[0].size, cursor=cursor)
        seen, stretches, cursor = seen + part.blobs, stretches + 1, part.cursor
        if cursor is None:
            break
    assert (seen, stretches) == (7, 4)


def test_an_empty_vault_is_sound(vault_store):
    assert scrub(vault_store).cursor is None
