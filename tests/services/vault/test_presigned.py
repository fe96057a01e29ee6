"""Direct transfers by signed URLs: what the URLs permit, and how uploads become blobs."""

from contextlib import closing
from datetime import timedelta

import httpx
import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceError,
)
from kuber.services.vault import presigned
from kuber.services.vault.garbage_collection import collect
from kuber.services.vault.presigned import PresignedUrls
from kuber.services.vault.s3 import S3Storage
from kuber.services.vault.s3_client import Bucket
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads

from ..blob_places import S3Bucket, key

DATA = bytes(range(256)) * 10_000


def artifact(data):
    return Artifact(digest=Digest.of(data), size=len(data))


def send(upload, data):
    httpx.put(upload.direct.url, content=data, trust_env=False, verify=False).raise_for_status()


@pytest.fixture
def place(tmp_path, bucket_url, s3):
    return S3Bucket(tmp_path, bucket_url, s3.url)


@pytest.fixture
def storage(place):
    return S3Storage(Bucket(place.url))


@pytest.fixture
def store(storage, tmp_path):
    with closing(VaultStore(tmp_path, storage=storage, quota=len(DATA) + 100)) as store:
        yield store


@pytest.fixture
def uploads(store, storage):
    return Uploads(store, presigned=PresignedUrls(storage))


def test_bytes_sent_to_the_url_become_the_blob(store, uploads, place):
    upload = uploads.begin(artifact(DATA), direct=True)
    with pytest.raises(ConflictError, match="Nothing of the upload"):
        uploads.complete_direct(upload.id)
    send(upload, DATA)
    assert store.size(Digest.of(DATA)) is None  # not before it is completed
    assert uploads.complete_direct(upload.id) == (artifact(DATA), True)
    assert store.get(Digest.of(DATA)) == DATA
    assert place.names() == [key(Digest.of(DATA))]
    with pytest.raises(KnowledgeNotFoundError, match="begin it again"):
        uploads.complete_direct(upload.id)
    assert uploads.begin(artifact(DATA), direct=True).id is None


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", DATA[:-1] + b"X", b"x"])
def test_other_bytes_than_announced_are_refused_and_deleted(store, uploads, place, data):
    upload = uploads.begin(artifact(DATA), direct=True)
    send(upload, data)
    with pytest.raises(CorruptKnowledgeError):
        uploads.complete_direct(upload.id)
    assert store.size(Digest.of(DATA)) is None
    assert place.names() == []
    with pytest.raises(KnowledgeNotFoundError):
        uploads.status(upload.id)


def test_bytes_changed_after_the_check_are_not_stored(store, uploads, place, monkeypatch):
    """The URL can still be used while the vault hashes; that must not change the blob."""
    upload = uploads.begin(artifact(DATA), direct=True)
    send(upload, DATA)
    original = presigned.hash_object

    def hash_then_change(*args):
        found = original(*args)
        send(upload, b"X" * len(DATA))
        return found

    monkeypatch.setattr(presigned, "hash_object", hash_then_change)
    uploads.complete_direct(upload.id)
    assert store.get(Digest.of(DATA)) == DATA
    assert place.names() == [key(Digest.of(DATA))]


def test_an_upload_with_a_url_may_be_sent_to_the_vault_instead(store, uploads, place):
    upload = uploads.begin(artifact(DATA), direct=True)
    lease = uploads.begin_append(upload.id, 0)
    lease.write(DATA)
    assert uploads.complete(lease) == (artifact(DATA), True)
    assert store.get(Digest.of(DATA)) == DATA
    assert place.names() == [key(Digest.of(DATA))]


def test_the_quota_applies_to_announced_and_stored_blobs(store, uploads, place):
    large = uploads.begin(artifact(DATA), owner="ann", direct=True)
    with pytest.raises(InsufficientStorageError):
        uploads.begin(artifact(DATA + b"more"), owner="ann", direct=True)
    send(large, DATA)
    with store.create() as writer:
        writer.write(b"y" * 90)  # within the rest of the quota
        store.commit(writer, Digest.of(b"y" * 90), owner="ann")
    uploads.complete_direct(large.id)
    with pytest.raises(InsufficientStorageError):
        uploads.begin(artifact(b"z" * 11), owner="ann", direct=True)


def test_an_upload_that_is_never_completed_is_dropped(place):
    storage = S3Storage(Bucket(place.url), expiry=timedelta())
    with closing(VaultStore(place.folder, storage=storage)) as store:
        uploads = Uploads(store, presigned=PresignedUrls(storage), expiry=timedelta())
        upload = uploads.begin(artifact(DATA), direct=True)
        send(upload, DATA)
        assert collect(store, uploads).leftovers == 2  # the object and the announcement
        with pytest.raises(KnowledgeNotFoundError):
            uploads.complete_direct(upload.id)
        send(upload, DATA)  # its URL is still valid
        assert collect(store, uploads).leftovers == 1
    assert place.names() == []


def test_a_download_url_reads_one_blob(store, storage):
    stored = store.put(DATA)
    url = PresignedUrls(storage).download_url(stored.digest).url
    options = {"trust_env": False, "verify": False}
    assert httpx.get(url, **options).content == DATA
    part = httpx.get(url, headers={"Range": "bytes=5-9"}, **options)
    assert (part.status_code, part.content) == (206, DATA[5:10])
    assert "X-Amz-Expires=600&" in url


def test_a_vault_without_a_bucket_offers_no_url(vault_store):
    uploads = Uploads(vault_store)
    upload = uploads.begin(artifact(DATA), direct=True)
    assert upload.direct is None
    with pytest.raises(RequestRejectedError, match="send it the bytes"):
        uploads.complete_direct(upload.id)


def test_an_upload_can_be_completed_after_an_outage(store, uploads, monkeypatch):
    upload = uploads.begin(artifact(DATA), direct=True)
    send(upload, DATA)

    def fail(*args):
        raise ServiceError("Unreachable.")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "copy", fail)
        with pytest.raises(ServiceError):
            uploads.complete_direct(upload.id)
    assert uploads.complete_direct(upload.id) == (artifact(DATA), True)
