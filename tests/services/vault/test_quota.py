"""Quota of an entity in a vault."""

import threading
from contextlib import closing
from datetime import timedelta

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import InsufficientStorageError
from kuber.services.vault.garbage_collection import collect
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads

QUOTA = 1000


@pytest.fixture
def store(tmp_path):
    with closing(VaultStore(tmp_path / "vault", quota=QUOTA, lease=timedelta(0))) as store:
        yield store


def put(store, data, owner):
    with store.create() as writer:
        writer.write(data)
        return store.commit(writer, Digest.of(data), owner=owner)


def test_each_entity_has_its_own_quota_and_the_hub_none(store):
    put(store, b"a" * 900, "ann")
    with pytest.raises(InsufficientStorageError, match="1000 bytes per entity and has 900 of yours, so 101 "):
        put(store, b"b" * 101, "ann")
    assert store.size(Digest.of(b"b" * 101)) is None
    assert not store.storage.path(Digest.of(b"b" * 101)).exists()
    put(store, b"b" * 100, "ann")
    put(store, b"c" * 1000, "bob")
    put(store, b"d" * 5000, None)


def test_a_stored_blob_may_be_sent_again_by_anybody(store):
    put(store, b"a" * 900, "ann")
    put(store, b"b" * 900, "bob")
    assert put(store, b"a" * 900, "bob") == (Artifact(digest=Digest.of(b"a" * 900), size=900), False)
    assert put(store, b"a" * 900, "ann")[1] is False


def test_collected_blobs_do_not_count(store):
    put(store, b"a" * 900, "ann")
    uploads = Uploads(store)
    collect(store, uploads, grace=timedelta(0))
    put(store, b"b" * 900, "ann")


def test_an_announced_blob_counts_once(store):
    uploads = Uploads(store, expiry=timedelta(0))
    large = Artifact(digest=Digest.of(b"a" * 900), size=900)
    uploads.begin(large, owner="ann")
    uploads.begin(large, owner="ann")  # the response to the first was lost
    with pytest.raises(InsufficientStorageError):
        uploads.begin(Artifact(digest=Digest.of(b"b" * 101), size=101), owner="ann")
    with pytest.raises(InsufficientStorageError):
        put(store, b"b" * 101, "ann")
    uploads.purge_expired()
    put(store, b"b" * 101, "ann")


def test_concurrent_uploads_do_not_exceed_the_quota_together(store):
    stored, refused = [], []

    def send(number):
        try:
            stored.append(put(store, bytes([number]) * 300, "ann"))
        except InsufficientStorageError as error:
            refused.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(stored), len(refused)) == (3, 9)
    assert len(store.blobs().items) == 3
    assert list((store.folder / "incoming").iterdir()) == []


def test_exceeding_the_quota_over_http_is_507_and_stores_nothing(own_hub):
    hub = own_hub("--open-enrolment", keeping=("--entity-quota", str(20 << 20)))
    credentials = Credentials()
    with HttpRegistry(hub.registry, credentials=credentials) as registry:
        registry.register("ann")
        with HttpVault(hub.vault, credentials=credentials) as vault:
            vault.put(b"a" * (4 << 20))
            vault.put(b"b" * (12 << 20))  # as an upload
            for size in (5 << 20, 12 << 20):
                with pytest.raises(InsufficientStorageError, match="withdraw knowledge that is no longer needed"):
                    vault.put(b"c" * size)
            vault.put(b"a" * (4 << 20))
            vault.put(b"d" * (4 << 20))
            assert sum(blob.size for blob in vault.blobs().items) == 20 << 20
