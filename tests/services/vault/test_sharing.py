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

from ..blob_places import S3Bucket, key
from .test_kills import KILLED, Writer, blob_path, check_bucket

NONE = timedelta()


@pytest.fixture
def place(tmp_path, bucket_url, s3):
    return S3Bucket(tmp_path / "seen", bucket_url, s3.url)


@pytest.fixture
def opened(tmp_path, place, vault_database):
    """Open one more vault on the same index and the same bucket."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def again(**options):
            storage = S3Storage(Bucket(place.url))
            folder = tmp_path / f"vault-{next(numbers)}"
            return stack.enter_context(
                closing(VaultStore(folder, storage=storage, database=vault_database, **options))
            )

        yield again


@pytest.fixture
def weights(safetensors):
    return lambda fill: safetensors({"w": TensorSpec(dtype="F32", shape=(8,))}, fill=fill)


def pin(vault, holder, artifact):
    vault.pin(holder, [("weights", artifact)])


def test_what_one_stores_another_serves_keeps_and_collects(opened, place, weights):
    one, other = opened(lease=NONE), opened(lease=NONE)
    artifact = one.put(weights(1))
    assert other.get(artifact.digest) == weights(1)
    pin(other, "record", artifact)
    assert collect(one, Uploads(one), grace=NONE).blobs == 0
    one.unpin("record")
    assert collect(other, Uploads(other), grace=NONE).blobs == 1
    with pytest.raises(KnowledgeNotFoundError):
        one.get(artifact.digest)
    assert place.names() == []


def test_an_index_is_of_one_place_and_no_other(tmp_path, vault_database, s3, bucket_url):
    """A slip of the pen in --data or --store would drop the rows of all that lies elsewhere."""

    def vault(name, url=None):
        storage = S3Storage(Bucket(url)) if url else None
        return closing(VaultStore(tmp_path / name, storage=storage, database=vault_database))

    with vault("one") as store:
        kept = store.put(b"a blob")
    for name, url in (("other", None), ("third", bucket_url)):
        with pytest.raises(ServiceError, match="belongs to another storage"), vault(name, url):
            pass
    with vault("one") as store:
        assert store.get(kept.digest) == b"a blob"
    shutil.copytree(tmp_path / "one" / "blobs", tmp_path / "moved" / "blobs")
    shutil.copy(tmp_path / "one" / "mark", tmp_path / "moved" / "mark")
    with vault("moved") as store:
        assert store.get(kept.digest) == b"a blob"


def test_a_bucket_keeps_the_mark_of_its_index(opened, place, vault_database, tmp_path, s3):
    with closing(VaultStore(tmp_path / "own", storage=S3Storage(Bucket(place.url)))) as store:
        kept = store.put(b"a blob")
    # An index that is lost finds the blobs again; and they are those of one index from then on.
    again = opened()
    assert again.get(kept.digest) == b"a blob"
    with pytest.raises(ServiceError, match="here it is none"):
        VaultStore(tmp_path / "own", storage=S3Storage(Bucket(f"{place.url}-misspelt")))


def test_an_upload_that_one_announced_is_fetched_by_another(opened, place):
    one, other = opened(), opened()
    data = random.Random(1).randbytes(2_000_000)
    artifact = Artifact(digest=Digest.of(data), size=len(data))
    begun, there = (Uploads(store, presigned=PresignedUrls(store.storage)) for store in (one, other))
    upload = begun.begin(artifact, owner="ann", direct=True)
    httpx.put(upload.direct.url, content=data, trust_env=False, verify=False).raise_for_status()
    third = opened()
    assert Uploads(third).purge_expired() == there.purge_expired() == 0  # it is not theirs, and young
    assert there.complete_direct(upload.id) == (artifact, True)
    assert one.get(artifact.digest) == data
    assert place.names() == [key(artifact.digest)]
    with pytest.raises(KnowledgeNotFoundError, match="begin it again"):
        there.complete_direct(upload.id)
    begun.purge_expired()
    assert begun.begin(artifact).id is None


def test_rows_of_a_vault_that_did_not_come_back_are_dropped_in_the_end(opened, vault_database):
    one, other = opened(), opened()
    upload = Uploads(one).begin(Artifact(digest=Digest.of(b"x"), size=1), direct=True)
    assert Uploads(other, expiry=NONE).purge_expired() == 1
    with pytest.raises(KnowledgeNotFoundError):
        Uploads(other, presigned=PresignedUrls(other.storage)).complete_direct(upload.id)


def test_one_that_starts_does_not_index_what_another_is_about_to(opened, monkeypatch):
    """The object is there, and its row comes: reconciling waits for it, and it stays its owner's."""
    one = opened()
    between, go_on = threading.Event(), threading.Event()
    index = one._index

    def slowly(*args, **options):
        between.set()
        assert go_on.wait(60)
        return index(*args, **options)

    monkeypatch.setattr(one, "_index", slowly)
    kept = []

    def put():
        with one.create() as writer:
            writer.write(b"weights")
            kept.append(one.commit(writer, Digest.of(b"weights"), owner="ann"))

    putting = threading.Thread(target=put)
    putting.start()
    assert between.wait(60)
    started = []
    starting = threading.Thread(target=lambda: started.append(opened()))
    starting.start()
    starting.join(0.5)
    assert started == []  # it waits
    go_on.set()
    putting.join()
    starting.join()
    assert kept == [(Artifact(digest=Digest.of(b"weights"), size=7), True)]
    assert started[0].get(Digest.of(b"weights")) == b"weights"


def test_one_that_starts_does_not_drop_what_another_puts_again(opened, place, monkeypatch):
    """The listing is old when it is compared: each row is looked at again before it is dropped."""
    one = opened()
    artifact = one.put(b"weights")
    place.remove(key(artifact.digest))
    stock = S3Storage.list_sizes

    def outdated(storage):
        found = stock(storage)
        one.put(b"weights")
        return found

    monkeypatch.setattr(S3Storage, "list_sizes", outdated)
    assert opened().get(artifact.digest) == b"weights"


@pytest.mark.parametrize("acts", [4, pytest.param(300, marks=pytest.mark.soak)])
def test_putting_and_collecting_at_two_vaults(opened, place, weights, acts):
    """With next to no grace, whoever has pinned finds the bytes, at both, and whoever has not may put them again."""
    vaults = [opened(lease=NONE) for _ in range(2)]
    files = [weights(fill) for fill in range(4)]
    wrong = []

    def publish(writer):
        numbers = random.Random(writer)
        for act in range(acts):
            data, holder = numbers.choice(files), f"{writer}-{act}"
            here, there = numbers.sample(vaults, 2)
            while True:
                blob = here.put(data)
                try:
                    pin(here, holder, blob)
                    break
                except (RequestRejectedError, KnowledgeNotFoundError):
                    continue  # collected between the two steps, as there is no lease
            try:
                if there.get(blob.digest) != data:
                    wrong.append(holder)
            except KnowledgeNotFoundError:
                wrong.append(holder)
            there.unpin(holder)

    threads = [threading.Thread(target=publish, args=(writer,)) for writer in range(4)]
    period = timedelta(milliseconds=50)
    with ExitStack() as stack:
        for vault in vaults:
            stack.enter_context(periodic_collection(vault, Uploads(vault), period=period, grace=NONE))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    collect(vaults[0], Uploads(vaults[0]), grace=NONE)
    assert wrong == []
    assert vaults[1].blobs().items == ()
    assert place.names() == []


POINTS = [">copied"]
MORE = ["<copied", ">row", ">staged", ">copied to be hashed", "<fetched", ">rows removed", "<object removed"]


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.soak) for point in MORE)])
def test_one_of_two_is_killed_and_the_other_goes_on(start, tmp_path, place, vault_database, safetensors, point):
    def large(token):
        return safetensors({token.hex(): TensorSpec(dtype="F32", shape=(100_000,))}, fill=token[0] % 64)

    shared = ["--store", place.url, "--database", vault_database, "--direct", "--collect-every", "0"]
    if "removed" in point:
        shared += ["--lease", "0", "--grace", "0"]
    times = str(random.Random(point).randrange(3, 6))
    killed = start("vault", "--data", str(tmp_path / "one"), *shared, program=(KILLED, point, times))
    other = start("vault", "--data", str(tmp_path / "other"), *shared)
    writers = [Writer(each.client, large, f"{point} {n}", direct=True) for n, each in enumerate((killed, other))]
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
        assert other.client.get(blob_path(data)).content == data
    again = start("vault", "--data", str(tmp_path / "one"), *shared, "--upload-expiry", "0").client
    again.post("/v1/collections").raise_for_status()
    check_bucket(again, place, kept)
