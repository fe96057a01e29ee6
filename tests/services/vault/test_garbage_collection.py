"""Garbage collection deletes blobs without pin and lease, and nothing else."""

import itertools
import random
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import TensorSpec
from kuber.errors import (
    InsufficientStorageError,
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceUnavailableError,
)
from kuber.services.vault.garbage_collection import collect, periodic_collection
from kuber.services.vault.uploads import Uploads
from tests.fixtures.waiting import LIMIT

from ..blob_places import Folder, S3Bucket, key

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


class Clock:
    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def vault(vault_place, clock):
    with closing(vault_place.store(lease=HOUR, clock=clock)) as store:
        yield store


@pytest.fixture
def uploads(vault):
    return Uploads(vault)


@pytest.fixture
def weights(safetensors):
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(8,))}, fill=fill)


def pin(vault, holder, *artifacts):
    vault.pin(holder, [("weights", artifact) for artifact in artifacts])


def test_keeps_a_blob_for_its_lease_and_grace_period(vault, vault_place, uploads, clock, weights):
    blob = vault.put(weights(1))
    for minutes, kept in [(0, True), (60, True), (119, True), (120, False)]:
        clock.now = datetime(2026, 1, 1, tzinfo=UTC) + minutes * MINUTE
        assert collect(vault, uploads, grace=HOUR).blobs == (not kept)
        assert (vault.size(blob.digest) is not None) == (key(blob.digest) in vault_place.names()) == kept


def test_keeps_a_blob_while_it_is_pinned_and_then_for_the_grace_period(vault, uploads, clock, weights):
    pinned, free = vault.put(weights(1)), vault.put(weights(2))
    pin(vault, "first", pinned)
    pin(vault, "second", pinned)
    clock.now += 10 * HOUR
    assert collect(vault, uploads, grace=HOUR).size == free.size
    vault.unpin("first")
    clock.now += 10 * HOUR
    vault.unpin("second")
    assert collect(vault, uploads, grace=HOUR).blobs == 0
    clock.now += HOUR
    assert collect(vault, uploads, grace=HOUR).blobs == 1
    with pytest.raises(KnowledgeNotFoundError):
        vault.open(pinned.digest)


@pytest.mark.parametrize("repeat", ["put", "announced"])
def test_sending_a_blob_again_renews_its_lease(vault, uploads, clock, weights, repeat):
    blob = vault.put(weights(1))
    clock.now += HOUR
    assert (uploads.begin(blob).id if repeat == "announced" else vault.put(weights(1)).size) in (None, blob.size)
    clock.now += HOUR - MINUTE
    assert collect(vault, uploads, grace=timedelta()).blobs == 0
    clock.now += MINUTE
    assert collect(vault, uploads, grace=timedelta()).blobs == 1


def test_a_collected_blob_cannot_be_pinned(vault, uploads, clock, weights):
    blob = vault.put(weights(1))
    clock.now += HOUR
    collect(vault, uploads, grace=timedelta())
    with pytest.raises(RequestRejectedError, match="not in the vault"):
        pin(vault, "late", blob)


@pytest.mark.parametrize("vault_place", ["folder"], indirect=True)
def test_collects_more_than_one_batch(vault, uploads, clock, weights):
    kept = [vault.put(weights(fill)) for fill in range(100)][::9]
    for artifact in kept:
        pin(vault, f"record-{artifact.digest.hex}", artifact)
    clock.now += HOUR
    assert collect(vault, uploads, grace=timedelta()).blobs == 100 - len(kept)
    assert sorted(item.digest for item in vault.blobs().items) == sorted(artifact.digest for artifact in kept)


def test_deletes_abandoned_files_but_not_those_being_written(tmp_path):
    vault_place = Folder(tmp_path)
    with closing(vault_place.store()) as vault:
        check_abandoned(vault_place, vault)


def test_deletes_expired_objects_but_not_those_being_written(tmp_path, bucket_url, s3):
    vault_place = S3Bucket(tmp_path, bucket_url, s3.url)
    vault_place.write(f"staging/{'0123' * 8}", b"half")
    with closing(vault_place.store()) as vault:  # objects expire after a day
        assert collect(vault, Uploads(vault)).leftovers == 0
        assert vault_place.names() == [f"staging/{'0123' * 8}"]
    with closing(vault_place.store(expiry=timedelta())) as vault:
        vault_place.remove(f"staging/{'0123' * 8}")
        check_abandoned(vault_place, vault)


def check_abandoned(vault_place, vault):
    uploads = Uploads(vault)
    vault_place.write(f"{vault_place.staging}/{'0123' * 8}", b"half")
    vault_place.write(f"{vault_place.staging}/foreign", b"mine")
    with vault.create() as writer:
        writer.write(b"whole")
        assert collect(vault, uploads).leftovers == 1
        vault.commit(writer, Digest.of(b"whole"))
    assert vault.get(Digest.of(b"whole")) == b"whole"
    assert f"{vault_place.staging}/foreign" in vault_place.names()


def test_a_blob_is_rolled_back_when_its_row_cannot_be_written(vault, vault_place, monkeypatch):
    def fail(_work):
        raise InsufficientStorageError("Full.")

    monkeypatch.setattr(vault.database, "write", fail)
    with pytest.raises(InsufficientStorageError):
        vault.put(b"blob")
    assert vault_place.names() == []


@pytest.mark.parametrize("vault_place", ["folder"], indirect=True)
@pytest.mark.parametrize(
    ("error", "level", "message"),
    [
        (ServiceUnavailableError("Another vault collects."), "WARNING", "no collection this time"),
        (OSError(28, "No space left on device"), "ERROR", "collection failed"),
    ],
)
def test_a_failed_collection_is_logged_and_repeated(
    vault, uploads, clock, weights, monkeypatch, caplog, error, level, message
):
    vault.put(weights(1))
    clock.now += timedelta(days=2)
    done = threading.Event()
    original = vault.storage.purge_incomplete
    errors = [error]

    def fail_once():
        if errors:
            raise errors.pop()
        return original()

    monkeypatch.setattr(vault.storage, "purge_incomplete", fail_once)
    period = timedelta(milliseconds=1)
    with periodic_collection(vault, uploads, period=period, grace=timedelta(), on_collection=lambda _: done.set()):
        assert done.wait(LIMIT)
    (entry,) = [entry for entry in caplog.records if entry.levelname == level]
    assert message in entry.getMessage()
    assert vault.blobs().items == ()


@pytest.mark.parametrize("acts", [25, pytest.param(20_000, marks=pytest.mark.soak)])
def test_pinned_blobs_survive_concurrent_collections(vault_place, weights, acts):
    """Without lease and grace period, pinned bytes are found, and others can be put again."""
    bucket = isinstance(vault_place, S3Bucket)
    acts = max(2, acts // 10) if bucket else acts  # each needs several requests
    vault = vault_place.store(lease=timedelta())
    uploads = Uploads(vault)
    files = [weights(fill) for fill in range(6)]
    wrong = []

    def publish(writer):
        numbers = random.Random(writer)
        for act in range(acts):
            data, holder = numbers.choice(files), f"{writer}-{act}"
            for _ in itertools.count():
                blob = vault.put(data)
                try:
                    pin(vault, holder, blob)
                    break
                except (RequestRejectedError, KnowledgeNotFoundError):
                    continue  # collected between put and pin, as there is no lease
            try:
                if vault.get(blob.digest) != data:
                    wrong.append(holder)
            except KnowledgeNotFoundError:
                wrong.append(holder)
            vault.unpin(holder)

    threads = [threading.Thread(target=publish, args=(writer,)) for writer in range(4)]
    period = timedelta(milliseconds=50 if bucket else 1)
    with closing(vault), periodic_collection(vault, uploads, period=period, grace=timedelta()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        collect(vault, uploads, grace=timedelta())
        assert wrong == []
        assert vault.blobs().items == ()
        assert vault_place.names() == []
