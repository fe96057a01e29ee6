"""Quota of an entity in a vault."""

import contextlib
import shutil
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.auth import Caller, Scope
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import (
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    ServiceUnavailableError,
)
from kuber.services.http.auth import FOREVER
from kuber.services.vault.app import vault_app
from kuber.services.vault.free_disk import FreeDisk
from kuber.services.vault.garbage_collection import collect
from kuber.services.vault.metrics import VaultMetrics
from kuber.services.vault.quota import MAX_RECEIVING, MAX_UPLOADS
from kuber.services.vault.schema import upload_rows
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import IDLE, Uploads
from tests.fixtures.coroutines import run_coroutine

QUOTA = 1000
_Usage = type(shutil.disk_usage("/"))


def artifact(data):
    return Artifact(digest=Digest.of(data), size=len(data))


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


def test_a_blob_that_is_announced_again_continues_its_upload(store):
    uploads = Uploads(store)
    large = artifact(b"a" * 900)
    first = uploads.begin(large, owner="ann")
    uploads.begin_append(first.id, 0).write(b"a" * 500)
    again = uploads.begin(large, owner="ann")
    assert (again.id, again.offset) == (first.id, 500)
    assert uploads.begin(large).id not in (first.id, None)  # of the hub itself, not of an entity
    assert uploads.begin(large, owner="bob").id != first.id
    lease = uploads.begin_append(again.id, 500)
    lease.write(b"a" * 400)
    assert uploads.complete(lease) == (large, True)


def test_announcements_of_one_digest_with_other_sizes_count(store):
    uploads = Uploads(store)
    uploads.begin(Artifact(digest=Digest.of(b"a"), size=600), owner="ann")
    with pytest.raises(InsufficientStorageError, match="has 600 of yours"):
        uploads.begin(Artifact(digest=Digest.of(b"a"), size=401), owner="ann")


def test_unfinished_uploads_of_an_entity_are_bounded(store):
    uploads = Uploads(store)
    begun = [uploads.begin(artifact(bytes([number])), owner="ann").id for number in range(MAX_UPLOADS)]
    with pytest.raises(InsufficientStorageError, match="complete them, or wait until they expire"):
        uploads.begin(artifact(b"more"), owner="ann")
    uploads.begin(artifact(b"more"), owner="bob")
    lease = uploads.begin_append(begun[0], 0)
    lease.write(bytes([0]))
    uploads.complete(lease)
    uploads.begin(artifact(b"more"), owner="ann")


def test_idle_uploads_make_room_for_a_new_one(store):
    now = [datetime.now(UTC)]
    store.clock = lambda: now[0]
    uploads = Uploads(store)
    old = uploads.begin(artifact(b"a" * 600), owner="ann")
    uploads.begin(artifact(b"c" * 600), owner="bob")
    with pytest.raises(InsufficientStorageError):
        uploads.begin(artifact(b"b" * 600), owner="ann")
    now[0] += IDLE + timedelta(minutes=1)
    uploads.begin(artifact(b"b" * 600), owner="ann")
    assert uploads.in_progress == 2
    with pytest.raises(KnowledgeNotFoundError):
        uploads.status(old.id)
    with pytest.raises(InsufficientStorageError):
        uploads.begin(artifact(b"d" * 1001), owner="ann")  # not even with all the room


def test_small_blobs_are_bounded_by_their_number(store, monkeypatch):
    monkeypatch.setattr("kuber.services.vault.quota.FEWEST_BLOBS", 3)
    for number in range(3):
        put(store, bytes([number]), "ann")
    with pytest.raises(InsufficientStorageError, match="at most 3 blobs per entity"):
        put(store, b"more", "ann")
    assert put(store, bytes([0]), "ann")[1] is False
    put(store, b"more", "bob")


def test_repeated_uploads_of_an_earlier_version_end_at_the_start(tmp_path):
    large = artifact(b"a" * 900)
    with closing(VaultStore(tmp_path)) as store:
        uploads = Uploads(store)
        ids = [uploads.begin(large, owner=owner).id for owner in ("ann", "bob", "cem")]
        uploads.begin_append(ids[1], 0).write(b"a" * 500)
        store.database.write(lambda connection: connection.execute(update(upload_rows).values(owner="ann")))
    with closing(VaultStore(tmp_path)) as store:
        assert Uploads(store).begin(large, owner="ann").id == ids[1]
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == [ids[1]]


def test_bytes_count_while_they_are_received(store):
    with closing(store.receiving.begin(Digest.of(b"a"), owner="ann")) as chunked:
        chunked.receive(600)
        with pytest.raises(InsufficientStorageError, match="has 600 of yours, so 401 more"):
            store.receiving.begin(Digest.of(b"b"), 401, owner="ann")
        with pytest.raises(InsufficientStorageError):
            Uploads(store).begin(Artifact(digest=Digest.of(b"b"), size=401), owner="ann")
        with closing(store.receiving.begin(Digest.of(b"b"), 400, owner="ann")) as announced:
            announced.receive(400)  # reserved already
            with pytest.raises(InsufficientStorageError):
                chunked.receive(1)
        store.receiving.begin(Digest.of(b"c"), 1000, owner="bob").close()
        store.receiving.begin(Digest.of(b"d"), 5000, owner=None).close()
    assert store.receiving.bytes_of("ann") == 0
    store.receiving.begin(Digest.of(b"b"), 1000, owner="ann").close()


def test_a_stored_blob_is_sent_again_without_regard_to_the_quota_but_is_no_longer(store):
    put(store, b"a" * 900, "ann")
    digest = Digest.of(b"a" * 900)
    with closing(store.receiving.begin(digest, owner="ann")) as again:
        again.receive(900)
        with pytest.raises(CorruptKnowledgeError, match="has 900 bytes"):
            again.receive(1)
    with pytest.raises(CorruptKnowledgeError):
        store.receiving.begin(digest, 899, owner="bob")


def test_an_entity_sends_a_bounded_number_of_blobs_at_a_time(store):
    digest = put(store, b"a", "ann")[0].digest
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_RECEIVING):
            stack.enter_context(closing(store.receiving.begin(digest, owner="ann")))
        with pytest.raises(ServiceUnavailableError) as caught:
            store.receiving.begin(digest, owner="ann")
        assert caught.value.retry_after == 1
        store.receiving.begin(digest, owner="bob").close()
    store.receiving.begin(digest, owner="ann").close()


def test_a_body_without_a_length_that_exceeds_the_quota_ends_with_507(tmp_path):
    async def ann(_token, _origin):
        return Caller(scope=Scope.ENTITY, entity="ann", expires_at=FOREVER)

    async def pieces():
        while True:
            yield bytes(1 << 18)

    async def scenario(store):
        app = vault_app(store, Uploads(store), ann, VaultMetrics(store, Uploads(store)))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://vault") as client:
            headers = {"Authorization": "Bearer token"}
            return await client.put(f"/v1/blobs/{Digest.of(b'a')}", content=pieces(), headers=headers)

    with closing(VaultStore(tmp_path, quota=3 << 20)) as store:
        answer = run_coroutine(scenario(store))
        assert (answer.status_code, answer.json()["code"]) == (507, "insufficient-storage")
        assert list((tmp_path / "incoming").iterdir()) == []
        assert store.receiving.bytes_of("ann") == 0


@pytest.fixture
def small(tmp_path):
    """Vault with room for 1000 bytes of all entities together."""
    with closing(VaultStore(tmp_path / "small", total_quota=1000, lease=timedelta(0))) as store:
        store.total._monotonic = lambda: 0.0  # it counts once, and afterwards what arrives
        yield store


def test_all_entities_together_have_a_quota_and_services_none(small):
    put(small, b"a" * 600, "ann")
    sentence = "at most 1000 bytes of all entities together and has 600, so 401 more .* --total-quota"
    with pytest.raises(InsufficientStorageError, match=sentence):
        put(small, b"b" * 401, "bob")
    assert not small.storage.path(Digest.of(b"b" * 401)).exists()
    put(small, b"b" * 400, "bob")
    put(small, b"a" * 600, "bob")  # it is there
    put(small, b"s" * 5000, None)
    with pytest.raises(InsufficientStorageError):
        put(small, b"c", "cem")


def test_bytes_of_uploads_count_towards_the_whole_as_they_arrive(small):
    uploads = Uploads(small)
    ids = {owner: uploads.begin(artifact(owner.encode() * 300), owner=owner).id for owner in ("ann", "bob")}
    with pytest.raises(InsufficientStorageError, match="has 0, so 1001"):
        uploads.begin(Artifact(digest=Digest.of(b"c"), size=1001), owner="cem")
    uploads.begin_append(ids["ann"], 0).write(b"ann" * 200)
    lease = uploads.begin_append(ids["bob"], 0)
    lease.write(b"b" * 400)
    with pytest.raises(InsufficientStorageError):
        lease.write(b"b")
    with pytest.raises(InsufficientStorageError):
        small.receiving.begin(Digest.of(b"c"), 1, owner="cem")
    small.total._monotonic = lambda: 1000.0  # it counts again: the same
    with pytest.raises(InsufficientStorageError, match="has 1000,"):
        put(small, b"c", "cem")
    uploads._drop(uploads._session(ids["bob"]))
    small.total._monotonic = lambda: 1002.0
    reserved = small.receiving.begin(Digest.of(b"c"), 400, owner="cem")
    with closing(reserved), pytest.raises(InsufficientStorageError, match="has 1000,"):
        uploads.begin_append(ids["ann"], 600).write(b"a")
    lease = uploads.begin_append(ids["ann"], 600)
    lease.write(b"ann" * 100)
    assert uploads.complete(lease)[1]
    small.total._monotonic = lambda: 1020.0
    put(small, b"c" * 100, "cem")
    with pytest.raises(InsufficientStorageError, match="has 1000,"):
        put(small, b"d", "cem")


def test_removed_blobs_make_room_for_all(small):
    put(small, b"a" * 1000, "ann")
    collect(small, Uploads(small), grace=timedelta(0))
    with pytest.raises(InsufficientStorageError):
        put(small, b"b" * 1000, "bob")
    small.total._monotonic = lambda: 2.0
    put(small, b"b" * 1000, "bob")


def test_some_of_the_disk_stays_free(store):
    room = 100
    store.disk = FreeDisk(store.folder, keep=50, free=lambda: room)
    store.storage.disk = store.disk
    uploads = Uploads(store)
    put(store, b"a" * 50, None)
    with pytest.raises(InsufficientStorageError, match="leaves 50 bytes of its disk free"):
        put(store, b"b" * 51, None)
    id = uploads.begin(artifact(b"b" * 80)).id
    lease = uploads.begin_append(id, 0)
    with pytest.raises(InsufficientStorageError):
        lease.write(b"b" * 80)
    room = 49
    with pytest.raises(InsufficientStorageError):
        uploads.begin(artifact(b"c"))
    room = 1000
    lease = uploads.begin_append(id, 0)
    lease.write(b"b" * 80)
    assert uploads.complete(lease)[1]
    assert list((store.folder / "incoming").iterdir()) == []


def test_a_vault_keeps_a_twentieth_of_its_disk_free_but_at_most_a_gibibyte(tmp_path, monkeypatch):
    for total, kept in ((1 << 40, 1 << 30), (20 << 20, 1 << 20)):
        monkeypatch.setattr("shutil.disk_usage", lambda _folder, total=total: _Usage(total, 0, total))
        assert FreeDisk(tmp_path).keep == kept
    assert FreeDisk(tmp_path, 0).keep == 0


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
            begun = vault._begin(artifact(b"d" * (4 << 20)))
            remains = b"e" * (1 << 20)  # other bytes, of an earlier attempt
            vault.request("PATCH", f"/v1/uploads/{begun.id}", content=remains, headers={"Upload-Offset": "0"})
            vault._upload(b"d" * (4 << 20), artifact(b"d" * (4 << 20)))
    with HttpVault(hub.vault, credentials=Credentials(token=hub.operator)) as vault:
        assert sum(blob.size for blob in vault.blobs().items) == 20 << 20
