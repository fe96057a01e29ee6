"""Records are read once, and their judgements each time."""

from sqlalchemy import event

from kuber.domain.query import Query
from kuber.domain.verification import Standing, Verification
from kuber.services.registry import record_cache


def statements(store):
    """Return a list that receives every statement of a store's readers from now on."""
    sent = []
    event.listen(
        store.database._backend.autocommit_engine, "before_cursor_execute", lambda *event: sent.append(event[2])
    )
    return sent


def test_a_page_of_cached_records_is_one_statement(registry_store, draft):
    ids = [registry_store.publish(draft((number, 0), fill=number), key=f"{number}").id for number in range(5)]
    first = registry_store.discover(Query(order="newest"))
    sent = statements(registry_store)
    again = registry_store.discover(Query(order="newest"))
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 1
    assert [record.id for record in again.items] == ids[::-1]
    assert all(record is cached for record, cached in zip(first.items, again.items, strict=True))
    paged = registry_store.discover(Query(order="newest", limit=2))
    assert registry_store.discover(Query(order="newest", limit=2, cursor=paged.cursor)).items == again.items[2:4]


def test_a_new_record_is_not_read_at_all(registry_store, draft):
    sent = statements(registry_store)
    stored = registry_store.publish(draft((3, 4)), key="k")
    sent.clear()
    (found,) = registry_store.discover(Query()).items
    assert found is stored
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 1


def test_a_verification_by_another_process_is_returned_at_once(stores, draft_of):
    first, second = stores
    record = first.publish(draft_of(first.register("a").id, (3, 4)), key="a")
    id = record.id
    assert first.discover(Query()).items[0].verification is None
    holds = Verification(standing=Standing.VERIFIED, reason="The claim holds.", evaluation=record.evaluation)
    second.verify(id, holds)
    (found,) = first.discover(Query()).items
    assert found.verification == holds
    assert first.discover(Query()).items[0] is found
    second.quarantine(id, "It was sent by mistake.")
    assert first.discover(Query()).items == ()
    (barred,) = first.discover(Query(standing=Standing.QUARANTINED)).items
    assert barred.verification.reason == "It was sent by mistake."
    second.release(id)
    assert first.discover(Query()).items[0] == found


def test_the_cache_is_bounded(registry_store, draft, monkeypatch):
    monkeypatch.setattr(record_cache, "CACHED", 8)
    for number in range(20):
        registry_store.publish(draft((number % 8, 0), fill=number), key=f"{number}")
        assert len(registry_store.discover(Query(order="newest", limit=2)).items) == min(2, number + 1)
        assert len(registry_store._reader.cache) <= 8
    assert len(registry_store.discover(Query()).items) == 20
