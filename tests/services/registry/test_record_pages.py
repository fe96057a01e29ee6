"""Pages of records and the memory that they take are bounded in bytes, also with records of older versions."""

import dataclasses
import tracemalloc
from datetime import UTC, datetime

import pytest

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Architecture, Artifact, Knowledge, TensorSpec
from kuber.domain.query import Query, all_pages, collect, pages
from kuber.errors import TooLargeError
from kuber.services.registry import knowledge_reader, record_cache
from tests.services.records import ARCHITECTURE, TASK, TEST_SET

ORDERS = [
    Query(order="newest", limit=4),
    Query(order="oldest", limit=4),
    Query(order="accuracy", limit=4),
    Query(order="classes", classes=(0, 1), limit=4),
    Query(order="accuracy", latest=True, limit=4),
]


@pytest.fixture
def publish(registry_store, draft, monkeypatch):
    """Publish a record of so many characters, as every earlier version accepted it."""
    monkeypatch.setattr("kuber.services.registry.publishing.check_size", lambda body, size: None)
    made = iter(range(1000))

    def make(characters=0, correct=None):
        number = next(made)
        size = {f"{at}": "x" * 1000 for at in range(characters // 1000)}
        other = Architecture(name="line", arguments={"n": number, **size}, manifest=ARCHITECTURE.manifest)
        counts = (number % 10, 5) if correct is None else correct
        return registry_store.publish(draft(counts, fill=number, architecture=other), key=f"{number}").id

    return make


def fresh(store):
    """Return a reader of the same database that has cached nothing."""
    store._reader = knowledge_reader.KnowledgeReader()
    return store


@pytest.mark.parametrize("query", ORDERS[:4], ids=lambda query: query.order)
@pytest.mark.parametrize("cached", [True, False])
def test_a_page_ends_early_when_its_records_are_large(registry_store, publish, monkeypatch, query, cached):
    monkeypatch.setattr(knowledge_reader, "MAX_PAGE_BYTES", 30_000)
    ids = [publish(10_000) for _ in range(6)] + [publish() for _ in range(3)]
    store = registry_store if cached else fresh(registry_store)
    found = list(pages(lambda cursor: store.discover(dataclasses.replace(query, cursor=cursor))))
    listed = [record.id for page in found for record in page.items]
    assert sorted(listed) == sorted(ids)
    assert all(page.items and not page.omitted for page in found)
    assert len(found) > 3
    whole = collect(store.discover, dataclasses.replace(query, limit=7))
    assert [record.id for record in whole.items] == listed[:7]
    assert whole.cursor is not None


def test_records_that_are_not_kept_count_and_do_not_stay_in_memory(registry_store, publish):
    ids = [publish() for _ in range(6)]
    asked = []

    def discover(query):
        asked.append(query.limit)
        return registry_store.discover(dataclasses.replace(query, limit=min(query.limit, 2)))

    found = collect(discover, Query(order="oldest", limit=5), keep=lambda record: record.id != ids[1])
    assert [record.id for record in found.items] == [ids[0], *ids[2:5]]
    assert asked == [5, 3, 1]


@pytest.mark.parametrize("query", ORDERS[:4], ids=lambda query: query.order)
def test_records_that_no_page_can_hold_blind_no_reader(registry_store, publish, monkeypatch, query):
    monkeypatch.setattr(knowledge_reader, "MAX_PAGE_BYTES", 30_000)
    large = {publish(40_000) for _ in range(7)}
    small = {publish() for _ in range(2)} | {publish(10_000)}
    large |= {publish(40_000, (9, 9)) for _ in range(6)}
    store = fresh(registry_store)
    for id in large:
        assert store.knowledge(id).id == id  # a single one is read; it must not enter pages by the cache
    found = list(pages(lambda cursor: store.discover(dataclasses.replace(query, cursor=cursor))))
    assert {record.id for page in found for record in page.items} == small
    assert sorted(id for page in found for id in page.omitted) == sorted(large)
    assert len(collect(store.discover, query).items) == 3


def test_the_cache_is_bounded_in_bytes(registry_store, publish, monkeypatch):
    monkeypatch.setattr(record_cache, "CACHED_BYTES", 200_000)
    ids = [publish(10_000) for _ in range(30)]
    store = fresh(registry_store)
    for _ in range(2):
        assert len(list(all_pages(lambda cursor: store.discover(Query(limit=10, cursor=cursor))))) == 30
        assert store._reader.cache.memory < 240_000
    assert 0 < len(store._reader.cache) < len(ids)


def test_a_shared_architecture_is_counted_once():
    cache = record_cache.RecordCache()
    manifest = {f"t{n}": TensorSpec(dtype="F32", shape=(n,)) for n in range(100)}
    shared = Architecture(name="wide", arguments={}, manifest=manifest)
    record = record_of(shared)
    for seq in range(50):
        one = dataclasses.replace(record, id=f"{seq}")
        cache.put(seq, record_cache.CachedRecord((None, None, None), one, 100))
        cache.put(seq, record_cache.CachedRecord((None, None, None), one, 100))
    assert cache.memory < 50 * 3000 + 2 * record_cache.architecture_memory(shared)


def record_of(architecture):
    return Knowledge(
        id="a",
        entity="e",
        task=TASK,
        architecture=architecture,
        artifacts={ONNX: Artifact.of(b"x")},
        evaluation=Evaluation(test_set=TEST_SET, correct=(1, 1), total=(2, 2)),
        round=1,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_estimate_of_memory_is_not_too_low(monkeypatch):
    """Records of different architectures with manifests of nearly a megabyte."""
    monkeypatch.setattr(record_cache, "CACHED_BYTES", 16 << 20)
    cache = record_cache.RecordCache()
    tracemalloc.start()
    for seq in range(8):
        manifest = {f"tensor {n} {seq} {'x' * 30}": TensorSpec(dtype="F32", shape=(n, 1)) for n in range(10_000)}
        wide = Architecture(name="wide", arguments={}, manifest=manifest)
        cache.put(seq, record_cache.CachedRecord((None, None, None), record_of(wide), 1_000_000))
    del manifest, wide
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 1 < len(cache) < 8
    assert kept < cache.memory < 24 << 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"x": tuple(range(20_000))}}, "without its manifest has 1.* at most 65,536"),
        (
            {"manifest": {f"{n:04}{'x' * 990}": TensorSpec(dtype="F32", shape=(1,)) for n in range(1000)}},
            "manifest has 1,0.* at most 1,000,000",
        ),
    ],
    ids=["arguments", "manifest"],
)
def test_refuses_a_record_that_is_too_large(registry_store, draft, changes, message):
    architecture = dataclasses.replace(ARCHITECTURE, **changes)
    with pytest.raises(TooLargeError, match=message):
        registry_store.publish(draft(architecture=architecture), key="large")
