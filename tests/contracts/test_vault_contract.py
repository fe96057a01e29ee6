"""Contract of every vault."""

import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError


@pytest.fixture(
    params=[
        "memory",
        "disk",
        *(pytest.param(place, marks=pytest.mark.process) for place in ("postgresql", "http", "s3")),
    ]
)
def place(request):
    return request.param


def weights(*artifacts):
    """Return the artifacts, each with its kind."""
    return [("weights", artifact) for artifact in artifacts]


def test_returns_stored_bytes(vault, samples):
    data = samples.weights()
    artifact = vault.put(data)
    assert artifact == Artifact(digest=Digest.of(data), size=len(data))
    assert vault.get(artifact.digest) == data
    assert vault.size(artifact.digest) == len(data)


def test_stores_a_blob_of_several_pieces(vault, samples):
    data = samples.weights() + bytes(range(256)) * 20_000
    assert vault.get(vault.put(data).digest) == data


def test_putting_again_changes_nothing(vault, samples, walk):
    data = samples.weights()
    first = vault.put(data)
    assert vault.put(data) == first
    stored = walk(lambda cursor: vault.blobs(cursor=cursor, limit=1000))
    assert stored.count(first) == 1


def test_refuses_an_empty_blob(vault):
    with pytest.raises(RequestRejectedError):
        vault.put(b"")


def test_does_not_find_what_it_does_not_have(vault, samples):
    missing = Digest.of(samples.weights())
    assert vault.size(missing) is None
    with pytest.raises(KnowledgeNotFoundError, match=missing.hex):
        vault.get(missing)


def test_lists_in_order_of_digest(vault, samples, walk):
    mine = {vault.put(samples.weights()) for _ in range(8)}
    stored = walk(lambda cursor: vault.blobs(cursor=cursor, limit=7))
    assert mine <= set(stored)
    assert stored == sorted(stored, key=lambda artifact: artifact.digest)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_refuses_pages_of_impossible_size(vault, limit):
    with pytest.raises(RequestRejectedError):
        vault.blobs(limit=limit)


@pytest.mark.parametrize("cursor", ["nonsense", "", "a" * 63, "accuracy:0"])
def test_refuses_foreign_cursors(vault, cursor):
    with pytest.raises(RequestRejectedError):
        vault.blobs(cursor=cursor)


def test_pins_stored_blobs_and_returns_the_manifests(vault, samples):
    manifest = samples.architecture.manifest
    artifacts = [vault.put(samples.weights()) for _ in range(2)]
    for _ in range(2):
        found = vault.pin(samples.name("holder"), weights(*artifacts))
        assert found == {artifact.digest: manifest for artifact in artifacts}
    assert vault.pin(samples.name("other"), weights(*artifacts[:1])) == {artifacts[0].digest: manifest}


def test_pins_all_or_none(vault, place, samples):
    present = vault.put(samples.weights())
    missing = Artifact(digest=Digest.of(samples.weights()), size=3)
    with pytest.raises(RequestRejectedError, match=missing.digest.hex):
        vault.pin(samples.name("holder"), weights(present, missing))
    if place != "http":  # the port does not list pins
        assert vault.pinned(present.digest) == []


def test_refuses_to_pin_a_wrong_size(vault, samples):
    stored = vault.put(samples.weights())
    with pytest.raises(RequestRejectedError, match=f"{stored.size} bytes"):
        vault.pin(samples.name("holder"), weights(Artifact(digest=stored.digest, size=stored.size + 1)))


@pytest.mark.parametrize("holder", ["", "x" * 201])
def test_refuses_impossible_holders(vault, samples, holder):
    with pytest.raises(RequestRejectedError):
        vault.pin(holder, weights(vault.put(samples.weights())))


def test_stores_the_same_blob_from_many_threads(vault, samples):
    data = samples.weights()
    with ThreadPoolExecutor(4) as pool:
        artifacts = set(pool.map(vault.put, [data] * 8))
    assert artifacts == {Artifact(digest=Digest.of(data), size=len(data))}
    assert vault.get(Digest.of(data)) == data


def test_unpins_a_holder(vault, place, samples):
    stored = vault.put(samples.weights())
    for holder in ("one", "two"):
        vault.pin(samples.name(holder), weights(stored))
    for _ in range(2):
        vault.unpin(samples.name("one"))
    if place != "http":
        assert vault.pinned(stored.digest) == [samples.name("two")]


def test_refuses_to_pin_unknown_kinds(vault, samples):
    with pytest.raises(RequestRejectedError, match="'pickle'"):
        vault.pin(samples.name("holder"), [("pickle", vault.put(samples.weights()))])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_refuses_to_pin_weights_that_are_not_finite(vault, samples, number):
    stored = vault.put(samples.weights()[:-12] + struct.pack("<fq", number, 0))
    for _ in range(2):  # the verdict is remembered
        with pytest.raises(RequestRejectedError, match="not a valid weights artifact: tensor 'weight' holds"):
            vault.pin(samples.name("holder"), weights(stored))
