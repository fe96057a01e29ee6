"""Every query that KUber sends to a registry is answered from an index, on both databases."""

import json
from contextlib import closing, nullcontext
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, func, select

from kuber.client.consistency import _found
from kuber.client.registry import query_parameters
from kuber.domain.evaluation import Evaluation
from kuber.domain.query import Page, Query
from kuber.domain.strategies import STRATEGIES
from kuber.domain.verification import Standing
from kuber.entity.clock import Clock
from kuber.entity.hub.candidate_models import CandidateModels
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.paces import Paces
from kuber.entity.hub.teacher_search import TeacherSearch
from kuber.services.db.database import Database
from kuber.services.registry.discovery import discover_statement
from kuber.services.registry.latest import update_newest
from kuber.services.registry.schema import knowledge, newest_knowledge

from ...domain.samples import ARCHITECTURE, situation
from ..registry_rows import COMMON, ORIGINS, OWN, fill

ENTITIES, EACH = 400, 40


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def database(request, tmp_path_factory):
    """A registry's database that was filled before the migration which added `newest_knowledge`."""
    if request.param == "sqlite":
        place = tmp_path_factory.mktemp("registry") / "registry.sqlite"
        yield from opened(place, f"sqlite:///{place}")
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield from opened(url, url)


def opened(place, url):
    engine = create_engine(url)
    with engine.begin() as connection:
        fill(connection, entities=ENTITIES, each=EACH)
    with closing(Database(place, history="registry")) as database:
        if database.shared:  # the server does this itself after a while; SQLite plans without
            with engine.begin() as connection:
                connection.exec_driver_sql("ANALYZE")
        yield database
    engine.dispose()


def entity_queries():
    """Return the queries of entities of every strategy, in all situations that make a difference."""
    queries = []
    registry = SimpleNamespace(discover=lambda query: queries.append(query) or Page(items=(), cursor=None))
    state = SimpleNamespace(entity_id="e4", refused=(), first_seen={}, round=3, publishers={})
    journal = SimpleNamespace(state=state, change=lambda **_: None, append=lambda *_: None)
    hub = SimpleNamespace(registry=registry)
    availability = SimpleNamespace(
        call=lambda function, _default, action: function(), using=lambda service: nullcontext()
    )
    outbox, search = (
        SimpleNamespace(availability=availability, paces=Paces(Clock())),
        TeacherSearch(journal, alerts=None),
    )
    for task in (COMMON, OWN):
        for verified_only in (False, True):
            evaluator = SimpleNamespace(model=SimpleNamespace(task=task, architecture=ARCHITECTURE))
            models = CandidateModels(
                journal,
                evaluator,
                hub,
                storage=None,
                availability=availability,
                trust=None,
                alerts=None,
                search=search,
                independent=False,
            )
            parts = {"outbox": outbox, "alerts": None, "search": search, "models": models}
            entity = Discovery(journal, evaluator, hub, verified_only=verified_only, **parts)
            list(entity.initial_checkpoints())
            for strategy in STRATEGIES.values():
                for own in (None, (10, 90), (90, 90)):
                    for origin in (None, ORIGINS[0]):
                        now = own and Evaluation(test_set=ORIGINS[1], correct=own, total=(100, 100))
                        before = now and Evaluation(test_set=ORIGINS[1], correct=(100, 100), total=(100, 100))
                        at = situation(now, previous=before, origin=origin, classes=2)
                        for _, query in filter(None, (strategy.before(at), strategy.after(at))):
                            entity.candidates(query)
    return list(dict.fromkeys(queries))


def hub_queries():
    """Return the queries of the verifier and of `kuber hub check`."""
    queries = []
    registry = SimpleNamespace(discover=queries.append)
    for standing in (None, Standing.QUARANTINED):
        _found(registry, standing, None)
    return [*queries, Query(task=COMMON.name, test_set=COMMON.test_set, pending=True, order="newest", limit=100)]


def label(query):
    """Return the fields of a query that differ from their defaults."""
    return " ".join(f"{name}={value}" for name, value in query_parameters(query).items())


def test_entities_of_all_strategies_send_many_queries():
    queries = entity_queries()
    assert {query.order for query in queries} == {"accuracy", "newest", "oldest", "classes"}
    assert {(query.latest, query.initial) for query in queries} == {(True, False), (False, False), (False, True)}
    assert (
        {query.origin is None for query in queries} == {query.test_set is None for query in queries} == {True, False}
    )


@pytest.mark.parametrize("query", [*entity_queries(), *hub_queries()], ids=label)
def test_no_query_reads_or_sorts_all_records(database, query):
    with database.read_snapshot() as connection:
        select_page, values = discover_statement(query)
        compiled = select_page.params(values).compile(
            dialect=connection.dialect, compile_kwargs={"literal_binds": True}
        )
        statement = str(compiled).replace("%%", "%")
        if database.shared:
            explain = "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) "
            plan = connection.exec_driver_sql((explain + statement).replace("%", "%%")).scalar_one()
            check_postgresql(plan if isinstance(plan, list) else json.loads(plan), query)
        else:
            check_sqlite([row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")], query)


def sorts_the_newest(query):
    """Return whether one row of each entity must be read, as no index has the order of the newest."""
    return query.latest and query.order != "newest"


def check_sqlite(plan, query):
    scans = [step for step in plan if step.startswith("SCAN")]
    # Newest first of all tasks: a backward scan of the table that ends with the page.
    assert scans == ([] if query.task or query.standing else ["SCAN knowledge"])
    assert any("TEMP B-TREE" in step for step in plan) == sorts_the_newest(query), plan


def check_postgresql(plan, query):
    # Count the rows read: for a small part of a table a scan may be the best plan.
    nodes = []

    def walk(node):
        nodes.append(node)
        for part in node.get("Plans", ()):
            walk(part)

    walk(plan[0]["Plan"])
    read = {}
    for node in nodes:
        if "Relation Name" in node:
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            rows = (node["Actual Rows"] + removed) * node["Actual Loops"]
            read[node["Relation Name"]] = read.get(node["Relation Name"], 0) + rows
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "knowledge"]
    # Without statistics, as in the first minute of a hub, a join may read one table for each row of the other.
    alone = query.latest and query.order != "accuracy" and query.standing is None
    assert alone == ("knowledge" not in read), plan
    assert read.get("knowledge", 0) <= max(ENTITIES, 2 * query.limit), plan
    assert read.get("newest_knowledge", 0) <= 2 * ENTITIES, plan
    for node in nodes:
        if node["Node Type"] in ("Sort", "Incremental Sort"):
            assert sorts_the_newest(query) or node["Plans"][0]["Actual Rows"] <= ENTITIES, plan


def newest_by_reading_all(connection):
    row = knowledge.c
    seen = select(row.entity, row.task_name, row.test_set, func.max(row.seq)).where(row.withdrawn_at.is_(None))
    seen = seen.where(func.coalesce(row.standing, "") != "quarantined")
    seen = seen.group_by(row.entity, row.task_name, row.test_set)
    found = {}
    for trained, query in ((False, seen), (True, seen.where(row.round > 0))):
        found |= {(*subject, trained): seq for *subject, seq in connection.execute(query)}
    return found


def newest_as_kept(connection):
    row = newest_knowledge.c
    kept = select(row.entity, row.task_name, row.test_set, row.trained, row.knowledge)
    return {tuple(subject): seq for *subject, seq in connection.execute(kept)}


def test_the_migration_finds_the_newest_records(database):
    with database.read_snapshot() as connection:
        kept = newest_as_kept(connection)
        assert kept == newest_by_reading_all(connection)
        assert len(kept) == 2 * ENTITIES


def test_when_the_newest_is_hidden_the_one_before_is_the_newest(database):
    changed = range(ENTITIES * (EACH - 3) + 1, ENTITIES * EACH + 1)
    row = knowledge.c

    def hide(connection):
        connection.execute(knowledge.update().values(accuracy=0.5))  # so that no record is clearly worse than another
        connection.execute(knowledge.update().where(row.seq.in_(changed)).values(standing=Standing.QUARANTINED))
        for seq in changed[:20]:
            update_newest(connection, seq)
        kept, there = newest_as_kept(connection), newest_by_reading_all(connection)
        for seq in changed[:20]:
            subject = connection.execute(select(row.entity, row.task_name, row.test_set).where(row.seq == seq)).one()
            for trained in (False, True):
                assert kept[*subject, trained] == there[*subject, trained] < changed[0]
        raise Undone

    with pytest.raises(Undone):
        database.write(hide)


class Undone(Exception):
    """Raised to roll back the changes of a test."""
