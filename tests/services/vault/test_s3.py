"""The vault on a bucket that is damaged or unreachable for a while."""

import random
from contextlib import closing

import psutil
import pytest

from kuber.domain.blob import Rot
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, ServiceUnavailableError
from kuber.services.vault.s3 import S3Storage
from kuber.services.vault.s3_client import Bucket
from kuber.services.vault.scrub import scrub
from kuber.services.vault.storage import CHUNK
from kuber.services.vault.store import VaultStore
from tests.fixtures.proxy import proxy

from ..blob_places import S3Bucket, key


@pytest.fixture
def place(tmp_path, bucket_url, s3):
    return S3Bucket(tmp_path, bucket_url, s3.url)


def write(store, data):
    with store.create() as writer:
        return write_rest(store, writer, data)


def write_rest(store, writer, data, written=0):
    for start in range(written, len(data), CHUNK):
        writer.write(data[start : start + CHUNK])
    return store.commit(writer, Digest.of(data))


def test_a_truncated_object_is_detected_before_its_bytes_are_sent(place):
    with closing(place.store()) as store:
        artifact = store.put(b"weights")
        place.write(key(artifact.digest), b"wei")
        with store.open(artifact.digest) as blob, pytest.raises(CorruptKnowledgeError, match="publish it again"):
            blob.seek_range(0, 2)
        for first, last in ((0, 6), (5, 6)):
            with store.open(artifact.digest) as blob, pytest.raises((CorruptKnowledgeError, ServiceUnavailableError)):
                blob.seek_range(first, last)


def test_other_objects_in_the_bucket_are_left_alone(place):
    place.write("blobs/readme.txt", b"not a blob")
    place.write(f"blobs/aa/bb/{'c' * 64}", b"nor this")
    place.write("elsewhere", b"nor this")
    with closing(place.store()) as store:
        assert store.blobs().items == ()
    assert len(place.names()) == 3


def test_lost_connections_only_delay(place, s3, monkeypatch, tmp_path):
    """Each connection may be cut; the store retries until the blob is stored."""
    with proxy(s3.url, seed=5, mishaps=["cut", "cut", "none"], reach=2_000_000) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        with closing(VaultStore(tmp_path / "v", storage=S3Storage(Bucket(place.url)))) as store:
            for seed in range(4):
                data = random.Random(seed).randbytes(3_000_000)
                assert write(store, data) == (Artifact(digest=Digest.of(data), size=len(data)), True)
                assert store.get(Digest.of(data)) == data
    assert len(line.struck) > 1
    assert [name for name in place.names() if not name.startswith("blobs/")] == []


def test_recovers_from_a_killed_server(s3, tmp_path, monkeypatch):
    """During the outage no blob is half stored; lost ones are reported, and repaired by putting them again."""
    server = type(s3)()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    name = server.bucket()
    old, new = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(20_000_000)
    with closing(S3Bucket(tmp_path, f"s3://{name}", server.url).store()) as store:
        kept = store.put(old)
        with store.create() as writer:
            for start in range(0, 12 * CHUNK, CHUNK):
                writer.write(new[start : start + CHUNK])
            server.close()
            with pytest.raises(ServiceUnavailableError, match="does not respond"):
                write_rest(store, writer, new, 12 * CHUNK)
        assert store.size(Digest.of(new)) is None
        for act in (lambda: store.get(kept.digest), lambda: scrub(store), lambda: store.put(b"small")):
            with pytest.raises(ServiceUnavailableError, match="does not respond"):
                act()
        assert store.blobs().items == (kept,)
        server = type(s3)(int(server.url.rpartition(":")[2]))
        with pytest.raises(ServiceUnavailableError, match="There is no bucket"):
            store.get(kept.digest)
        server.bucket(name)
        with pytest.raises(KnowledgeNotFoundError):
            store.get(kept.digest)
        assert scrub(store).rotten == (Rot(digest=kept.digest, fault="lost", holders=0),)
        for data in (new, old):
            assert store.get(write(store, data)[0].digest) == data
    server.close()


def test_resident_memory_is_bounded(place):
    """The client of the bucket, which is not written in Python, must not buffer whole blobs."""
    process, piece, count = psutil.Process(), bytes(CHUNK), 64
    with closing(place.store()) as store:
        store.get(write(store, bytes(9 * CHUNK))[0].digest)  # make the allocations that are made once
        before, peak = process.memory_info().rss, 0
        with store.create() as writer:
            for _ in range(count):
                writer.write(piece)
                peak = max(peak, process.memory_info().rss)
            artifact, _ = store.commit(writer, Digest(writer.hex))
        writing, peak = peak - before, 0
        with store.open(artifact.digest) as blob:
            while blob.read(CHUNK):
                peak = max(peak, process.memory_info().rss)
    assert artifact.size == count * CHUNK
    assert max(writing, peak - before) < 32 * CHUNK
