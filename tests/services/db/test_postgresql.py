"""A registry or vault on PostgreSQL: migrations, outages, values, locks."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, text
from starlette.testclient import TestClient

from kuber.domain.delivery import Delivery
from kuber.domain.message_limits import MAX_SAMPLES
from kuber.domain.query import Query
from kuber.errors import RequestRejectedError, ServiceError, ServiceUnavailableError
from kuber.services.db.database import Database
from kuber.services.registry import schema as registry_schema
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.app import registry_app
from kuber.services.registry.store import RegistryStore, sortable_id
from kuber.services.vault import schema as vault_schema
from kuber.services.vault.store import VaultStore
from tests.fixtures.waiting import LIMIT


@pytest.fixture
def database(vault_database):
    with closing(Database(vault_database, history="vault")) as made:
        yield made


def insert_pin(holder):
    statement = text("INSERT INTO pins (holder, digest, pinned_at) VALUES (:holder, 'd', '2026-01-01 00:00:00')")
    return lambda connection: connection.execute(statement, {"holder": holder})


def holders(database):
    with database.read_snapshot() as connection:
        return sorted(connection.scalars(text("SELECT holder FROM pins")))


# Migrations


def test_migrations_create_the_tables_of_both_services_in_one_database(postgres):
    both = {"registry": registry_schema.tables, "vault": vault_schema.tables}
    code = MetaData()
    for tables in both.values():
        for table in tables.tables.values():
            table.to_metadata(code)
    with postgres.database() as url:
        for history in both:
            Database(url, history=history).close()
        with closing(Database(url, history="vault")) as database, database.read_snapshot() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "include_object": lambda _, name, *__: "_version" not in name}
            )
            assert compare_metadata(context, code) == []


def test_several_start_at_once_on_an_empty_database(postgres):
    with postgres.database() as url:
        opened, failed = [], []

        def start():
            try:
                opened.append(Database(url, history="registry"))
            except ServiceError as error:
                failed.append(error)

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for database in opened:
            database.close()
        assert failed == []
        assert len(opened) == 6


# Outages of the server


def test_continues_when_the_server_is_back(postgres, database):
    database.write(insert_pin("before"))
    assert holders(database) == ["before"]
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError, match="The database cannot be read"):
                holders(database)
            with pytest.raises(ServiceUnavailableError, match="The database cannot be written"):
                database.write(insert_pin("meanwhile"))
            with pytest.raises(ServiceUnavailableError, match="is lost"), database.lock("blob", "a"):
                pass
    finally:
        postgres.start()
    database.write(insert_pin("after"))
    assert holders(database) == ["after", "before"]
    with database.lock("blob", "a"):
        pass


def test_a_write_interrupted_by_an_outage_fails(postgres, database):
    busy, proceed, errors = threading.Event(), threading.Event(), {}

    def slow(connection):
        insert_pin("slow")(connection)
        busy.set()
        assert proceed.wait(LIMIT)

    def write(name, work):
        try:
            database.write(work)
        except ServiceError as error:
            errors[name] = error

    threads = [threading.Thread(target=write, args=("slow", slow))]
    threads[0].start()
    assert busy.wait(LIMIT)
    postgres.stop()
    proceed.set()
    threads[0].join()
    postgres.start()
    assert isinstance(errors["slow"], ServiceUnavailableError)
    assert holders(database) == []
    database.write(insert_pin("again"))
    assert holders(database) == ["again"]


def test_a_commit_without_a_response_fails(database, monkeypatch):
    # The response to the commit is lost: the client cannot know that the write was committed.
    def lose_response(connection):
        insert_pin("in doubt")(connection)
        driver = connection.connection.driver_connection

        def commit():
            type(driver).commit(driver)
            driver.close()
            driver.cursor().execute("SELECT 1")  # raises the error of a closed connection

        monkeypatch.setattr(driver, "commit", commit, raising=False)

    with pytest.raises(ServiceUnavailableError, match="cannot be written"):
        database.write(lose_response)
    assert holders(database) == ["in doubt"]
    database.write(insert_pin("later"))
    assert holders(database) == ["in doubt", "later"]


# Values


def test_a_time_is_the_same_whatever_the_time_zone_of_the_server(postgres, registry_database, vault_store):
    name = registry_database.partition("?")[0].rpartition("/")[2]
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    postgres.execute(f"ALTER DATABASE {name} SET timezone = 'Pacific/Kiritimati'")
    with closing(RegistryStore(registry_database, vault=vault_store, clock=lambda: noon)) as store:
        member = store.register("entity")
        assert store.member(member.id).registered_at == noon
        assert store.member(member.id).registered_at.utcoffset().total_seconds() == 0
        with store.database.read_snapshot() as connection:
            stored = connection.scalar(text("SELECT extract(epoch FROM registered_at)::bigint FROM entities"))
    assert stored == noon.timestamp()


def test_text_with_a_nul_is_refused_in_one_sentence(stores, vault_database, tmp_path):
    store = stores[0]
    entity = store.register("entity").id
    delivery = Delivery(
        student=entity, teachers=("\0",), method="m", round=1, accuracy_before=0.5, accuracy_after=0.5, kept=True
    )
    with closing(VaultStore(tmp_path / "own vault", database=vault_database)) as vault:
        for act in (
            lambda: store.knowledge("a\0b"),
            lambda: store.member("\0"),
            lambda: store.discover(Query(task="a\0")),
            lambda: store.discover(Query(exclude_entity="a\0")),
            lambda: store.record(delivery, key="k"),
            lambda: vault.unpin("a\0b"),
        ):
            with pytest.raises(RequestRejectedError, match=r"refuses a value of the request: .*NUL"):
                act()
    assert store.member(entity).name == "entity"


def test_the_largest_numbers_of_a_message_fit_the_database(stores, draft_of):
    store = stores[0]
    most = MAX_SAMPLES - 2
    entity = store.register("entity").id
    record = store.publish(
        draft_of(entity, (most, 1), total=(most, 2), round=2**31 - 1, sample_count=MAX_SAMPLES), key="k"
    )
    assert store.knowledge(record.id) == record
    page = store.discover(Query(order="classes", classes=(0, 1)))
    assert page.items == (record,)
    assert access_on(store).events(after=2**63 - 1) == []


def access_on(store):
    return RegistryAccess(store.database, clock=lambda: datetime.now(UTC), ids=sortable_id)


def test_a_value_that_the_database_refuses_is_a_problem_document(stores):
    secret = "x" * 40
    with TestClient(registry_app(stores[0], access_on(stores[0]), secret)) as client:
        headers = {"Authorization": f"Bearer {secret}"}
        for path in ("/v1/knowledge/a%00b", "/v1/entities/%00", "/v1/knowledge?task=%00"):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 422
            assert answer.json()["code"] == "request-rejected"
            assert "only printable characters" in answer.json()["detail"]
        assert client.get("/v1/knowledge/ab", headers=headers).status_code == 404
        assert client.get("/v1/knowledge", headers={"Authorization": "Bearer nobody"}).status_code == 401


# Writers and locks of several processes


def test_writers_of_two_processes_exclude_each_other(vault_database):
    with (
        closing(Database(vault_database, history="vault")) as first,
        closing(Database(vault_database, history="vault")) as second,
    ):
        inside, counts = [], []

        def work(connection):
            # Without the lock of the writers both would read the same count.
            before = connection.scalar(text("SELECT count(*) FROM pins"))
            inside.append(1)
            counts.append(len(inside))
            time.sleep(0.005)
            inside.pop()
            insert_pin(f"h{before}")(connection)

        threads = [threading.Thread(target=database.write, args=(work,)) for database in (first, second) * 10]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(counts) == {1}
        assert holders(first) == sorted(f"h{number}" for number in range(20))


def test_a_lock_excludes_other_processes(vault_database):
    with (
        closing(Database(vault_database, history="vault")) as first,
        closing(Database(vault_database, history="vault")) as second,
    ):
        order = []
        waiting = threading.Event()

        def wait():
            waiting.set()
            with second.lock("blob", "b", "a"):
                order.append("second")

        with first.lock("blob", "a"):
            thread = threading.Thread(target=wait)
            thread.start()
            assert waiting.wait(LIMIT)
            with second.lock("blob", "c"), second.lock("another kind", "a"):  # these are free
                time.sleep(0.1)
            order.append("first")
        thread.join(LIMIT)
        assert order == ["first", "second"]


def test_a_lost_lock_is_an_error(postgres, database):
    with pytest.raises(ServiceUnavailableError, match="lock of blob a is lost"), database.lock("blob", "a"):
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    with database.lock("blob", "a"):
        pass


def test_threads_may_hold_more_locks_than_there_are_connections(database):
    done = []

    def hold(number):
        with database.lock("blob", str(number % 15)):
            database.write(insert_pin(f"h{number}"))
            done.append(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(45)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(45))
