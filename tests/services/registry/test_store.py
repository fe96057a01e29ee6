"""The registry on a database: publishing, discovering, races and restarts."""

import dataclasses
import random
import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, TensorSpec
from kuber.domain.query import Query, all_pages
from kuber.errors import ConflictError, KnowledgeNotFoundError, RequestRejectedError, ServiceUnavailableError
from kuber.services.registry.discovery import discover_statement
from kuber.services.registry.store import RegistryStore
from kuber.wire.registry import DraftBody

from ..stores import on_sqlite


def publish_many(registry, draft, count, *, prefix="k"):
    counts = random.Random(prefix).choices(range(11), k=count)
    return [registry.publish(draft(correct=(c, 0)), key=f"{prefix}{i}") for i, c in enumerate(counts)]


def walk(registry, query, *, between=lambda: None):
    def page(cursor):
        if cursor is not None:
            between()
        return registry.discover(dataclasses.replace(query, cursor=cursor))

    return list(all_pages(page))


def test_a_record_is_returned_as_published(registry_store, draft):
    parent = registry_store.publish(draft(), key="parent")
    sent = draft((9, 8), fill=1, round=2, parents=(parent.id,), sample_count=70, class_counts=(30, 40))
    record = registry_store.publish(sent, key="child")
    assert record == registry_store.knowledge(record.id)
    assert all(getattr(record, field.name) == getattr(sent, field.name) for field in dataclasses.fields(sent))
    assert record.published_at.tzinfo == UTC


def test_blobs_are_pinned_under_the_record(registry_store, vault_store, draft):
    record = registry_store.publish(draft(), key="k")
    assert vault_store.pinned(record.artifacts[WEIGHTS].digest) == [record.id]


def test_the_same_key_gives_the_same_record(registry_store, draft):
    first = registry_store.publish(draft(), key="k")
    assert registry_store.accept(DraftBody.of(draft()), key="k") == (first, False)
    with pytest.raises(ConflictError, match="another publication"):
        registry_store.publish(draft((5, 5)), key="k")


def test_racing_publications_with_one_key_give_one_record(registry_store, draft):
    sent, started, records = draft(), threading.Barrier(8), []

    def publish():
        started.wait()
        records.append(registry_store.publish(sent, key="k"))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 8
    assert len(set(record.id for record in records)) == 1
    assert len(registry_store.discover(Query()).items) == 1


def test_racing_registrations_give_one_member(registry_store):
    started, members = threading.Barrier(8), []

    def register():
        started.wait()
        members.append(registry_store.register("twin"))

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [member.id for member in registry_store.members().items] == [members[0].id]
    assert set(members) == {members[0]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"entity": "nobody"}, "No entity 'nobody' is registered"),
        ({"parents": ("nothing",)}, "has no knowledge 'nothing'"),
        ({"artifacts": {WEIGHTS: Artifact(digest=Digest.of(b"absent"), size=6)}}, "is not in the vault"),
    ],
)
def test_unknown_names_are_refused(registry_store, draft, changes, sentence):
    with pytest.raises(RequestRejectedError, match=sentence):
        registry_store.publish(draft(**changes), key="k")
    assert registry_store.discover(Query()).items == ()


def test_a_wrong_size_is_refused(registry_store, draft):
    sent = draft()
    weights = dataclasses.replace(sent.artifacts[WEIGHTS], size=sent.artifacts[WEIGHTS].size + 1)
    with pytest.raises(RequestRejectedError, match="bytes, not the"):
        registry_store.publish(dataclasses.replace(sent, artifacts={WEIGHTS: weights}), key="k")


@pytest.mark.parametrize("blob", [b"x", b"\x10" + bytes(7) + b"no safetensors..", bytes([255]) * 40])
def test_a_blob_that_is_not_weights_is_refused(registry_store, vault_store, draft, blob):
    with pytest.raises(RequestRejectedError, match="not a valid weights artifact"):
        registry_store.publish(draft(artifacts={WEIGHTS: vault_store.put(blob)}), key="k")


def test_weights_with_other_tensors_than_declared_are_refused(registry_store, draft):
    other = Architecture(name="line", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(4, 2))})
    with pytest.raises(RequestRejectedError, match="has other tensors"):
        registry_store.publish(draft(architecture=other), key="k")


def test_a_long_header_is_read_whole(registry_store, vault_store, draft, safetensors):
    manifest = {f"layer-{n:04}-{'x' * 80}": TensorSpec(dtype="F32", shape=(1,)) for n in range(600)}
    blob = safetensors(manifest)
    assert int.from_bytes(blob[:8], "little") > 1 << 16
    long = Architecture(name="long", arguments={}, manifest=manifest)
    record = registry_store.publish(draft(architecture=long, artifacts={WEIGHTS: vault_store.put(blob)}), key="k")
    assert registry_store.knowledge(record.id).architecture == long


def test_the_first_record_pins_the_manifest(registry_store, vault_store, draft, safetensors):
    first = registry_store.publish(draft(), key="first").architecture
    manifest = {"w": TensorSpec(dtype="F32", shape=(8,))}
    weights = {WEIGHTS: vault_store.put(safetensors(manifest))}
    with pytest.raises(ConflictError, match="pinned to other tensors"):
        registry_store.publish(
            draft(architecture=dataclasses.replace(first, manifest=manifest), artifacts=weights), key="second"
        )
    # A number of another type is another argument.
    other = dataclasses.replace(first, arguments={"width": 4.0, "bias": True}, manifest=manifest)
    assert registry_store.publish(draft(architecture=other, artifacts=weights), key="third").architecture == other


@pytest.mark.parametrize("order", ["accuracy", "newest"])
def test_pages_hold_everything_once_while_others_publish(registry_store, draft, order):
    there = publish_many(registry_store, draft, 23)
    more = iter(range(100))
    found = walk(
        registry_store,
        Query(order=order, limit=4),
        between=lambda: publish_many(registry_store, draft, 2, prefix=f"later{next(more)}-"),
    )
    ids = [record.id for record in found]
    assert len(set(ids)) == len(ids)
    assert {record.id for record in there} <= set(ids)
    if order == "newest":
        assert ids == [record.id for record in reversed(there)]
    else:
        assert found == sorted(found, key=lambda r: (-r.evaluation.accuracy, r.published_at))


def test_discover_filters(registry_store, draft):
    other = registry_store.register("entity-1").id
    publish_many(registry_store, draft, 12)
    theirs = [registry_store.publish(draft((c, c), entity=other), key=f"o{c}") for c in (2, 5, 8)]
    query = Query(task="parity", test_set=theirs[0].task.test_set, min_accuracy=0.5, exclude_entity=theirs[0].entity)
    mine = registry_store.discover(query).items
    assert mine
    assert all(record.entity != other and record.evaluation.accuracy >= 0.5 for record in mine)
    query = dataclasses.replace(query, exclude_entity=mine[0].entity)
    assert [record.id for record in registry_store.discover(query).items] == [theirs[2].id, theirs[1].id]
    assert registry_store.discover(dataclasses.replace(query, task="another")).items == ()
    assert registry_store.discover(dataclasses.replace(query, test_set=Digest.of(b"another"))).items == ()


@on_sqlite
@pytest.mark.parametrize("cursor", [None, "of a page before"])
@pytest.mark.parametrize(
    ("changes", "index"),
    [
        (
            {"task": "parity", "test_set": Digest.of(b""), "min_accuracy": 0.5, "exclude_entity": "x"},
            "knowledge_best",
        ),
        ({"task": "parity", "test_set": Digest.of(b""), "order": "newest"}, "knowledge_newest"),
        ({"min_accuracy": 0.5}, "knowledge_by_accuracy"),
    ],
)
def test_discover_walks_an_index(registry_store, draft, changes, index, cursor):
    publish_many(registry_store, draft, 12)
    query = Query(**changes, limit=5)
    if cursor:
        full = registry_store.discover(Query(order=query.order, limit=5)).cursor
        query = dataclasses.replace(query, cursor=full)
    plan = plan_of(registry_store, query)
    assert plan[1:] == FINDINGS  # no other step: nothing is sorted
    assert f"USING INDEX {index}" in plan[0]
    if query.task or cursor or query.min_accuracy:
        assert plan[0].startswith("SEARCH")


@on_sqlite
def test_the_latest_are_found_by_an_index(registry_store, draft):
    publish_many(registry_store, draft, 12)
    plan = plan_of(registry_store, Query(latest=True, task="parity", order="newest"))
    # The newest of each entity, in order: no record is read, compared or sorted.
    assert plan[0].startswith(
        "SEARCH newest_knowledge USING COVERING INDEX newest_knowledge_of_task (task_name=? AND trained=?)"
    )
    assert plan[1:] == FINDINGS


# The judgements of each record of the page, by its number.
FINDINGS = [
    "CORRELATED SCALAR SUBQUERY 1",
    "SEARCH verifications USING INTEGER PRIMARY KEY (rowid=?)",
    "CORRELATED SCALAR SUBQUERY 2",
    "SEARCH quarantines USING INTEGER PRIMARY KEY (rowid=?)",
    "CORRELATED SCALAR SUBQUERY 3",
    "SEARCH later_copies USING INTEGER PRIMARY KEY (rowid=?)",
]


def plan_of(store, query):
    statement, values = discover_statement(query)
    made = statement.params(values).compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with store.database.read_snapshot() as connection:
        return [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {made}"))]


def test_evaluations_are_rows_of_counts(registry_store, draft):
    registry_store.publish(draft((3, 4)), key="k")
    with registry_store.database.read_snapshot() as connection:
        counts = text("SELECT label, correct, total, recall FROM class_evaluations ORDER BY label")
        rows = [tuple(row) for row in connection.execute(counts)]
    assert rows == [(0, 3, 10, 300_000), (1, 4, 10, 400_000)]


def test_deliveries_are_recorded_once_and_in_order(registry_store, draft, entity):
    teachers = tuple(record.id for record in publish_many(registry_store, draft, 2))
    deliveries = [
        Delivery(
            student=entity,
            teachers=teachers[::-1],
            method="distil",
            round=n,
            accuracy_before=0.5,
            accuracy_after=0.25,
            kept=n % 2 == 0,
        )
        for n in range(1, 6)
    ]
    for delivery in deliveries:
        registry_store.record(delivery, key=f"r{delivery.round}")
        registry_store.record(delivery, key=f"r{delivery.round}")
    first = registry_store.deliveries(limit=3)
    rest = registry_store.deliveries(limit=3, cursor=first.cursor)
    assert [*first.items, *rest.items] == deliveries
    assert rest.cursor is None
    for wrong in ({"student": "nobody"}, {"teachers": ("nothing",)}):
        with pytest.raises(RequestRejectedError):
            registry_store.record(dataclasses.replace(deliveries[0], **wrong), key="wrong")


def test_members_come_in_order_and_by_page(registry_store):
    members = [registry_store.register(f"e{n}") for n in range(5)]
    assert registry_store.register("e2") == members[2]
    first = registry_store.members(limit=3)
    rest = registry_store.members(limit=3, cursor=first.cursor)
    assert [*first.items, *rest.items] == members
    assert rest.cursor is None


@pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines", "\x00"])
def test_an_unprintable_name_is_refused(registry_store, name):
    with pytest.raises(RequestRejectedError, match="printable"):
        registry_store.register(name)


def test_a_cursor_of_another_listing_is_refused(registry_store, draft):
    publish_many(registry_store, draft, 3)
    cursor = registry_store.discover(Query(order="newest", limit=1)).cursor
    for ask in (lambda: registry_store.discover(Query(cursor=cursor)), lambda: registry_store.members(cursor=cursor)):
        with pytest.raises(RequestRejectedError, match="cursor"):
            ask()


def test_unknown_knowledge_is_not_found(registry_store):
    with pytest.raises(KnowledgeNotFoundError):
        registry_store.knowledge("nothing")


def test_everything_survives_a_restart(place, registry_store, vault_store, draft):
    records = publish_many(registry_store, draft, 3)
    registry_store.close()
    again = RegistryStore(place, vault=vault_store)
    assert walk(again, Query(order="newest")) == records[::-1]
    assert again.register("entity-0").registered_at == datetime(2026, 1, 1, tzinfo=UTC)
    again.close()


def test_without_its_vault_nothing_is_stored(place, registry_store, draft):
    class Away:
        def pin(self, holder, artifacts):
            raise ServiceUnavailableError("The vault is unreachable.")

        def head(self, digest, length):
            raise AssertionError("pinned first")

    sent = draft()
    registry_store.close()
    store = RegistryStore(place, vault=Away())
    with pytest.raises(ServiceUnavailableError):
        store.publish(sent, key="k")
    assert store.discover(Query()).items == ()
    store.close()
