"""Expiry of events, deliveries and withdrawn records, and what followers learn of it."""

import threading
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from kuber.client.event_stream import EventReader
from kuber.client.registry import HttpRegistry
from kuber.domain.delivery import Delivery
from kuber.domain.query import Query
from kuber.errors import KnowledgeNotFoundError
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.app import registry_app
from kuber.services.registry.expiry import Gap, Removed, expire, periodic_expiry
from kuber.services.registry.store import sortable_id
from kuber.views.hub import HubView
from kuber.wire.registry import EnrolmentBody
from tests.fixtures.coroutines import run_coroutine
from tests.fixtures.waiting import wait_until

from ..processes import Applicant

SECRET = "s" * 40
LATER = datetime(2030, 1, 1, tzinfo=UTC)  # when everything so far is too old


@pytest.fixture
def access(registry_store):
    return RegistryAccess(
        registry_store.database, clock=lambda: datetime.now(UTC), ids=sortable_id, open_enrolment=True
    )


def acts(access):
    return [entry.act for entry in access.audit(limit=100).items]


def deliver(store, student, teachers, key):
    delivery = Delivery(
        student=student,
        teachers=teachers,
        method="distil",
        round=1,
        accuracy_before=0.1,
        accuracy_after=0.2,
        kept=True,
    )
    store.record(delivery, key=key)


def test_old_reports_and_deliveries_go_and_the_last_event_stays(registry_store, access, entity):
    for round in range(5):
        registry_store.report(entity, round=round)
    assert expire(registry_store.database, datetime(2000, 1, 1, tzinfo=UTC)) == Removed()
    assert access.gap() is None
    last = access.last_event()
    assert expire(registry_store.database, LATER).events == 4
    assert (acts(access), access.last_event()) == (["report"], last)
    assert access.gap() == Gap(through=last - 1, until=datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC))
    assert expire(registry_store.database, LATER) == Removed()
    registry_store.report(entity, round=6)
    assert access.last_event() == last + 1


def test_events_of_entities_and_records_stay_as_long_as_these(registry_store, access, draft):
    owner = Applicant()
    access.enrol(EnrolmentBody(**owner.enrolment("ann")))
    kept, gone = (registry_store.publish(draft(fill=fill), key=str(fill)).id for fill in (1, 2))
    registry_store.quarantine(kept, "It is odd.")
    registry_store.withdraw(gone)
    registry_store.report(draft().entity, round=1)
    assert expire(registry_store.database, LATER) == Removed(records=1, events=2)
    assert acts(access) == ["enrol", "publish", "quarantined", "report"]
    assert registry_store.knowledge(kept).id == kept


def test_withdrawn_records_stay_while_others_name_them(registry_store, draft, entity):
    seen = []
    root = registry_store.publish(draft(fill=1), key="1").id
    child = registry_store.publish(draft(fill=2, parents=(root,)), key="2").id
    leaf = registry_store.publish(draft(fill=3, parents=(child,)), key="3").id
    taught = registry_store.publish(draft(fill=4), key="4").id
    student = registry_store.register("student").id
    deliver(registry_store, student, (taught,), "delivery")
    for id in (root, child, taught):
        registry_store.withdraw(id)
    middle = datetime(2026, 1, 1, tzinfo=UTC)  # before all
    assert expire(registry_store.database, middle, on_record=seen.append) == Removed()
    removed = expire(registry_store.database, LATER, on_record=seen.append)
    assert (removed.records, removed.deliveries) == (1, 1)
    assert seen == [taught]
    assert registry_store.knowledge(root).id == root
    assert registry_store.knowledge(leaf).parents == (child,)
    registry_store.withdraw(leaf)
    assert expire(registry_store.database, LATER).records == 3  # a child goes before its parents
    assert registry_store.discover(Query()).items == ()


def test_a_removed_record_is_not_found_and_cannot_become_a_parent(registry_store, draft):
    id = registry_store.publish(draft(fill=1), key="1").id
    registry_store.knowledge(id)  # cached
    registry_store.withdraw(id)
    expire(registry_store.database, LATER, on_record=registry_store.forget)
    with pytest.raises(KnowledgeNotFoundError):
        registry_store.knowledge(id)


def test_removal_is_in_batches_and_stops_when_it_is_told_to(registry_store, entity, monkeypatch):
    monkeypatch.setattr("kuber.services.registry.expiry.BATCH", 2)
    for round in range(8):
        registry_store.report(entity, round=round)
    commits = []
    registry_store.database.on_commit = lambda writes, seconds, succeeded: commits.append(writes)
    stops = iter((False, True))
    assert expire(registry_store.database, LATER, pause=lambda: next(stops)).events == 4
    assert commits == [1, 1]
    assert expire(registry_store.database, LATER).events == 3


def test_a_registry_removes_by_itself_while_others_write(registry_store, access, entity):
    for round in range(3):
        registry_store.report(entity, round=round)
    with periodic_expiry(registry_store.database, timedelta(seconds=1), clock=lambda: LATER):
        wait_until(lambda: acts(access) == ["report"], "the removal of old events")
        registry_store.report(entity, round=4)
    assert not any(thread.name == "expiry" for thread in threading.enumerate())


def test_followers_learn_what_they_have_missed(registry_store, access, entity):
    owner = Applicant()
    access.enrol(EnrolmentBody(**owner.enrolment("ann")))
    for round in range(5):
        registry_store.report(entity, round=round)
    app = registry_app(registry_store, access, SECRET)
    missed, numbers = [], []

    class Registry:
        """Client of the application in this process."""

        url = "http://registry"
        parse = HttpRegistry.parse
        service = "registry"

        def request(self, method, path, *, params, headers, read_body):
            async def ask():
                transport = httpx.ASGITransport(app)
                sent = headers() | {"Authorization": f"Bearer {SECRET}"}
                async with httpx.AsyncClient(transport=transport, base_url=self.url) as client:
                    return await client.request(method, path, params=params, headers=sent)

            read_body(run_coroutine(ask()))

    reader = EventReader(Registry(), lambda number, _entry: numbers.append(number), on_missed=missed.append)
    reader.last = 2
    reader.read()
    assert (missed, numbers) == ([], [3, 4, 5, 6])
    expire(registry_store.database, LATER)
    reader.last, numbers[:] = 2, []
    reader.read()
    assert (missed, numbers) == ([datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC)], [6])
    reader.read()
    assert len(missed) == 1  # it is past the gap
    view = HubView()
    EventReader(Registry(), view.apply, on_missed=missed.append).read()
    assert len(missed) == 2
    assert [known.name for known in view.entities.values()] == ["ann"]
