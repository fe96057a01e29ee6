"""Numbers of a registry and a vault for the operator."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.services.backup import backup
from kuber.services.registry.status import read_status
from kuber.services.vault.status import read_status as read_vault_status
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads
from kuber.wire.status import GrowthBody

NOW = datetime(2026, 1, 9, tzinfo=UTC)  # eight days after the events of the stores


def test_a_registry_counts_what_it_holds(registry_store, draft, entity):
    ids = [registry_store.publish(draft(fill=fill), key=str(fill)).id for fill in range(4)]
    registry_store.withdraw(ids[0])
    registry_store.quarantine(ids[1], "It is odd.")
    registry_store.report(entity, round=1)
    found = read_status(registry_store.database, now=NOW, active=1, folder=None)
    assert (found.records, found.entities) == (GrowthBody(total=4, day=0, week=0), GrowthBody(total=1, day=0, week=0))
    assert (found.visible, found.withdrawn, found.quarantined, found.pending, found.tasks) == (2, 1, 1, 2, 1)
    assert found.events.total == 7
    assert found.first_event == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert found.database_bytes > 10_000
    assert (found.free_bytes, found.backup_at) == (None, None)
    recent = read_status(registry_store.database, now=NOW - timedelta(days=3), active=1, folder=None)
    assert recent.records == GrowthBody(total=4, day=0, week=4)


def test_an_empty_registry_has_only_zeros(registry_store):
    found = read_status(registry_store.database, now=NOW, active=0, folder=None)
    assert (found.records.total, found.events.total, found.first_event, found.visible) == (0, 0, None, 0)


def test_a_vault_counts_what_it_holds(tmp_path):
    with closing(VaultStore(tmp_path, keep_free=5, total_quota=1000)) as store:
        uploads = Uploads(store)
        blob = store.put(b"a blob")
        store.put(b"another")
        store.database.write(lambda connection: None)
        begun = uploads.begin(Artifact(digest=Digest.of(b"unfinished"), size=10))
        uploads.begin_append(begun.id, 0).write(b"unfin")
        store.storage.quarantine(blob.digest)
        now = datetime.now(UTC)
        found = read_vault_status(store, uploads, now)
        assert found.blobs == GrowthBody(total=2, day=2, week=2)
        assert found.blob_bytes == GrowthBody(total=13, day=13, week=13)
        assert (found.uploads, found.received_bytes, found.announced_bytes, found.damaged) == (1, 5, 10, 1)
        assert (found.kept_free_bytes, found.total_quota, found.pinned) == (5, 1000, 0)
        assert found.free_bytes > 0
        later = read_vault_status(store, uploads, now + timedelta(days=2))
        assert later.blobs == GrowthBody(total=2, day=0, week=2)


def test_a_registry_knows_its_last_backup(tmp_path, registry_store, vault_store, place):
    if registry_store.database.shared:
        return  # a server is backed up by its own tools
    backup(tmp_path / "saved", registry=place.parent, vault=vault_store.folder)
    found = read_status(registry_store.database, now=NOW, active=0, folder=place.parent)
    assert found.backup_folder == str(tmp_path / "saved")
    assert found.backup_at is not None
    assert found.free_bytes > 0
