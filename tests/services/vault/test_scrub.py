"""Scrubs find and quarantine damaged blobs; pins wait for the bytes to be stored again."""

from contextlib import closing

import pytest

from kuber.domain.blob import Rot
from kuber.domain.knowledge import TensorSpec
from kuber.errors import KnowledgeNotFoundError
from kuber.services.vault.scrub import scrub

from ..blob_places import key


@pytest.fixture
def weights(safetensors):
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(8,))}, fill=fill)


@pytest.fixture
def vault_store(vault_place):
    with closing(vault_place.store()) as store:
        yield store


@pytest.mark.parametrize("fault", ["damaged", "lost"])
def test_quarantines_damaged_blobs_and_keeps_pins(vault_store, vault_place, weights, fault):
    intact, rotten = vault_store.put(weights(1)), vault_store.put(weights(2))
    vault_store.pin("record", [("weights", rotten), ("weights", intact)])
    damaged, name = weights(3), key(rotten.digest)
    vault_place.write(name, damaged) if fault == "damaged" else vault_place.remove(name)
    found = scrub(vault_store)
    assert found.rotten == (Rot(digest=rotten.digest, fault=fault, holders=1),)
    assert (found.blobs, found.cursor) == (2, None)
    with pytest.raises(KnowledgeNotFoundError):
        vault_store.get(rotten.digest)
    quarantined = f"quarantine/{rotten.digest.hex}"
    assert vault_place.names() == sorted([key(intact.digest), *([quarantined] if fault == "damaged" else [])])
    assert fault == "lost" or vault_place.read(quarantined) == damaged
    vault_store.put(weights(2))
    assert vault_store.pinned(rotten.digest) == ["record"]
    assert scrub(vault_store).rotten == ()
    assert vault_store.get(intact.digest) == weights(1)


def test_scrubs_all_blobs_in_batches(vault_store, weights):
    stored = [vault_store.put(weights(fill)) for fill in range(7)]
    cursor, scrubbed, batches = None, 0, 0
    while True:
        batch = scrub(vault_store, limit=3, batch_bytes=2 * stored[0].size, cursor=cursor)
        scrubbed, batches, cursor = scrubbed + batch.blobs, batches + 1, batch.cursor
        if cursor is None:
            break
    assert (scrubbed, batches) == (7, 4)


def test_an_empty_vault_has_nothing_to_scrub(vault_store):
    assert scrub(vault_store).cursor is None
