"""The audit log: its pages are bounded in bytes, also with entries of older versions."""

import tracemalloc
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from kuber.domain.auth import REPORT, AuditEntry
from kuber.domain.message_limits import MAX_EVENT_BYTES
from kuber.domain.query import all_pages
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.audit import BATCH_BYTES, read_audit
from kuber.services.registry.event_feed import EventFeed, Notice
from kuber.services.registry.schema import audit

ROW = {"time": datetime(2026, 1, 1, tzinfo=UTC), "actor": "a", "act": REPORT, "subject": "a"}
LONG = {"round": 1, "correct": [2**62] * 5000, "total": [2**62] * 5000}  # as an older version stored it
LARGE = {"round": 1, "correct": [100] * 6000, "total": [100] * 5000}  # nearly as long as an event may be


@pytest.fixture
def stored(registry_store):
    def store(*details):
        rows = [ROW | {"detail": detail} for detail in details]
        registry_store.database.write(lambda connection: connection.execute(insert(audit), rows) and None)

    return store


def test_an_entry_that_is_too_long_is_replaced_by_its_size(registry_store, stored):
    stored({"round": 1}, LONG, {"round": 2})
    with registry_store.database.read_snapshot() as connection:
        found, more = read_audit(connection, after=0, limit=10, public=True)
    assert not more
    assert [number for number, _ in found] == [1, 2, 3]
    details = [entry.detail for _, entry in found]
    assert details[0] == {"round": 1}
    assert details[1].keys() == {"omitted"}
    assert details[1]["omitted"] > MAX_EVENT_BYTES
    assert details[2] == {"round": 2}


def test_a_page_ends_early_when_its_entries_are_long(registry_store, stored, monkeypatch):
    stored(*[LARGE] * 20, *[{"round": 1}] * 300)
    access = RegistryAccess(registry_store.database, clock=lambda: ROW["time"], ids=str)
    found = access.events(after=0, limit=320)
    assert 1 < len(found) < 10
    assert len(access.events(after=20, limit=320)) == 300
    sizes = []

    def page(cursor):
        made = access.audit(limit=250, cursor=cursor)
        sizes.append(len(made.items))
        return made

    assert len(list(all_pages(page))) == 320
    assert sizes == [250, 70]
    sizes.clear()
    monkeypatch.setattr("kuber.services.registry.audit.read_audit.__kwdefaults__", {"max_bytes": BATCH_BYTES})
    assert len(list(all_pages(page))) == 320
    assert len(sizes) > 4


def test_a_feed_keeps_a_bounded_number_of_bytes(monkeypatch):
    monkeypatch.setattr("kuber.services.registry.event_feed.RECENT_BYTES", 1 << 20)
    feed = EventFeed(read=None, read_last=None)
    tracemalloc.start()
    for number in range(1, 201):
        feed._keep([Notice.of(number, AuditEntry(**ROW, detail=LARGE))])
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1.5 * (1 << 20)
    assert [notice.number for notice in feed._recent] == list(range(feed._start + 1, 201))
    for number in range(201, 2000):
        feed._keep([Notice.of(number, AuditEntry(**ROW, detail={"round": 1}))])
    assert sum(notice.size for notice in feed._recent) == feed._size <= 1 << 20
