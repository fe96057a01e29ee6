"""Several vaults on one PostgreSQL database and one bucket, as stores and as processes that are killed."""

import itertools
import random
import shutil
import signal
import threading
from contextlib import ExitStack, closing
from datetime import timedelta

import httpx
import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, TensorSpec
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError, ServiceError
from kuber.services.vault.garbage_collection import collect, periodic_collection
from kuber.services.vault.presigned import PresignedUrls
from kuber.services.vault.s3 import S3Storage
from kuber.services.vault.s3_client import Bucket
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads
from tests.fixtures.waiting import LIMIT

from ..blob_places import S3Bucket, key
from .test_kills import KILL_POINTS, Writer, blob_path, check_bucket

ZERO = timedelta()


@pytest.fixture
def place(tmp_path, bucket_url, s3):
    return S3Bucket(tmp_path / "seen", bucket_url, s3.url)


@pytest.fixture
def opened(tmp_path, place, vault_database):
    """Open another vault on the same index and bucket."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def open_another(**options):
            storage = S3Storage(Bucket(place.url))
            folder = tmp_path / f"vault-{next(numbers)}"
            return stack.enter_context(
                closing(VaultStore(folder, storage=storage, database=vault_database, **options))
            )

        yield open_another


@pytest.fixture
def weights(safetensors):
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(8,))}, fill=fill)


def pin(vault, holder, artifact):
    vault.pin(holder, [("weights", artifact)])


def test_a_blob_of_one_vault_is_served_pinned_and_collected_by_another(opened, place, weights):
    first, second = opened(lease=ZERO), opened(lease=ZERO)
    artifact = first.put(weights(1))
    assert second.get(artifact.digest) == weights(1)
    pin(second, "record", artifact)
    assert collect(first, Uploads(first), grace=ZERO).blobs == 0
    first.unpin("record")
    assert collect(second, Uploads(second), grace=ZERO).blobs == 1
    with pytest.raises(KnowledgeNotFoundError):
        first.get(artifact.digest)
    assert place.names() == []


def test_an_index_belongs_to_one_storage(tmp_path, vault_database, s3, bucket_url):
    """A wrong --data or --store must not delete the rows of blobs that are stored elsewhere."""

    def vault(name, url=None):
        storage = S3Storage(Bucket(url)) if url else None
        return closing(VaultStore(tmp_path / name, storage=storage, database=vault_database))

    with vault("first") as store:
        kept = store.put(b"a blob")
    for name, url in (("second", None), ("third", bucket_url)):
        with pytest.raises(ServiceError, match="belongs to another storage"), vault(name, url):
            pass
    with vault("first") as store:
        assert store.get(kept.digest) == b"a blob"
    shutil.copytree(tmp_path / "first" / "blobs", tmp_path / "moved" / "blobs")
    shutil.copy(tmp_path / "first" / "mark", tmp_path / "moved" / "mark")
    with vault("moved") as store:
        assert store.get(kept.digest) == b"a blob"


def test_a_bucket_has_the_id_of_its_index(opened, place, vault_database, tmp_path, s3):
    with closing(VaultStore(tmp_path / "own", storage=S3Storage(Bucket(place.url)))) as store:
        kept = store.put(b"a blob")
    # A new index adopts the blobs, and the bucket belongs to it from then on.
    again = opened()
    assert again.get(kept.digest) == b"a blob"
    with pytest.raises(ServiceError, match="here it is none"):
        VaultStore(tmp_path / "own", storage=S3Storage(Bucket(f"{place.url}-misspelt")))


def test_a_direct_upload_to_one_vault_is_completed_by_another(opened, place):
    first, second = opened(), opened()
    data = random.Random(1).randbytes(2_000_000)
    artifact = Artifact(digest=Digest.of(data), size=len(data))
    beginning, completing = (Uploads(store, presigned=PresignedUrls(store.storage)) for store in (first, second))
    upload = beginning.begin(artifact, owner="ann", direct=True)
    httpx.put(upload.direct.url, content=data, trust_env=False, verify=False).raise_for_status()
    third = opened()
    # It belongs to another vault, and has not expired.
    assert Uploads(third).purge_expired() == completing.purge_expired() == 0
    assert completing.complete_direct(upload.id) == (artifact, True)
    assert first.get(artifact.digest) == data
    assert place.names() == [key(artifact.digest)]
    with pytest.raises(KnowledgeNotFoundError, match="begin it again"):
        completing.complete_direct(upload.id)
    beginning.purge_expired()
    assert beginning.begin(artifact).id is None


def test_upload_rows_of_a_lost_vault_expire(opened, vault_database):
    first, second = opened(), opened()
    upload = Uploads(first).begin(Artifact(digest=Digest.of(b"x"), size=1), direct=True)
    assert Uploads(second, expiry=ZERO).purge_expired() == 1
    with pytest.raises(KnowledgeNotFoundError):
        Uploads(second, presigned=PresignedUrls(second.storage)).complete_direct(upload.id)


def test_a_starting_vault_waits_for_the_commit_of_another(opened, monkeypatch):
    """The object exists before its row: reconciling must wait, so that the blob keeps its owner."""
    first = opened()
    indexing, proceed = threading.Event(), threading.Event()
    original = first.index

    def index_later(*args, **options):
        indexing.set()
        assert proceed.wait(LIMIT)
        return original(*args, **options)

    monkeypatch.setattr(first, "index", index_later)
    kept = []

    def put():
        with first.create() as writer:
            writer.write(b"weights")
            kept.append(first.commit(writer, Digest.of(b"weights"), owner="ann"))

    putting = threading.Thread(target=put)
    putting.start()
    assert indexing.wait(LIMIT)
    started = []
    starting = threading.Thread(target=lambda: started.append(opened()))
    starting.start()
    starting.join(0.5)
    assert started == []  # it waits
    proceed.set()
    putting.join()
    starting.join()
    assert kept == [(Artifact(digest=Digest.of(b"weights"), size=7), True)]
    assert started[0].get(Digest.of(b"weights")) == b"weights"


def test_a_starting_vault_keeps_a_blob_that_another_puts_again(opened, place, monkeypatch):
    """The listing may be outdated: each row is checked again before it is dropped."""
    first = opened()
    artifact = first.put(b"weights")
    place.remove(key(artifact.digest))
    original = S3Storage.list_sizes

    def outdated(storage):
        sizes = original(storage)
        first.put(b"weights")
        return sizes

    monkeypatch.setattr(S3Storage, "list_sizes", outdated)
    assert opened().get(artifact.digest) == b"weights"


@pytest.mark.parametrize("acts", [4, pytest.param(300, marks=pytest.mark.soak)])
def test_pinned_blobs_survive_concurrent_collections_by_two_vaults(opened, place, weights, acts):
    """Without lease and grace period, pinned bytes are found at both vaults, and others can be put again."""
    vaults = [opened(lease=ZERO) for _ in range(2)]
    files = [weights(fill) for fill in range(4)]
    wrong = []

    def publish(writer):
        numbers = random.Random(writer)
        for act in range(acts):
            data, holder = numbers.choice(files), f"{writer}-{act}"
            publisher, reader = numbers.sample(vaults, 2)
            while True:
                blob = publisher.put(data)
                try:
                    pin(publisher, holder, blob)
                    break
                except (RequestRejectedError, KnowledgeNotFoundError):
                    continue  # collected between put and pin, as there is no lease
            try:
                if reader.get(blob.digest) != data:
                    wrong.append(holder)
            except KnowledgeNotFoundError:
                wrong.append(holder)
            reader.unpin(holder)

    threads = [threading.Thread(target=publish, args=(writer,)) for writer in range(4)]
    period = timedelta(milliseconds=50)
    with ExitStack() as stack:
        for vault in vaults:
            stack.enter_context(periodic_collection(vault, Uploads(vault), period=period, grace=ZERO))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    collect(vaults[0], Uploads(vaults[0]), grace=ZERO)
    assert wrong == []
    assert vaults[1].blobs().items == ()
    assert place.names() == []


POINTS = [">copied"]
MORE = ["<copied", ">row", ">staged", ">copied to be hashed", "<fetched", ">rows removed", "<object removed"]


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.soak) for point in MORE)])
def test_one_of_two_vaults_is_killed_and_the_other_continues(
    start, tmp_path, place, vault_database, safetensors, point
):
    def large(token):
        return safetensors({token.hex(): TensorSpec(dtype="F32", shape=(100_000,))}, fill=token[0] % 64)

    shared = ["--store", place.url, "--database", vault_database, "--direct", "--collect-every", "0"]
    if "removed" in point:
        shared += ["--lease", "0", "--grace", "0"]
    times = str(random.Random(point).randrange(3, 6))
    killed = start("vault", "--data", str(tmp_path / "first"), *shared, program=(KILL_POINTS, point, times))
    second = start("vault", "--data", str(tmp_path / "second"), *shared)
    writers = [Writer(vault.client, large, f"{point} {n}", direct=True) for n, vault in enumerate((killed, second))]
    threads = [
        threading.Thread(target=writer.work, kwargs={"acts": acts})
        for writer, acts in zip(writers, (60, 12), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert killed.process.wait() == -signal.SIGKILL
    kept = [data for writer in writers for data in (writer.pinned if "removed" in point else writer.put)]
    assert len(writers[1].put) == 12
    for data in kept:
        assert second.client.get(blob_path(data)).content == data
    restarted = start("vault", "--data", str(tmp_path / "first"), *shared, "--upload-expiry", "0").client
    restarted.post("/v1/collections").raise_for_status()
    check_bucket(restarted, place, kept)
