"""Database of a service: grouped commits, snapshots, migrations, locks."""

import os
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from kuber.domain.delivery import Delivery
from kuber.errors import RequestRejectedError, ServiceError, ServiceUnavailableError
from kuber.services.db.database import Database, upgrade
from kuber.services.registry import schema as registry_schema
from kuber.services.registry.store import RegistryStore
from kuber.services.vault import schema as vault_schema
from tests.fixtures.waiting import LIMIT

from ..stores import on_sqlite


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def place(request, tmp_path):
    if request.param == "sqlite":
        return tmp_path / "made here" / "db.sqlite"
    return request.getfixturevalue("vault_database")


@pytest.fixture
def database(place):
    made = Database(place, history="vault")
    yield made
    made.close()


def insert_pin(holder):
    statement = text("INSERT INTO pins (holder, digest, pinned_at) VALUES (:holder, 'd', '2026-01-01 00:00:00')")
    return lambda connection: connection.execute(statement, {"holder": holder})


def holders(database):
    with database.read_snapshot() as connection:
        return sorted(connection.scalars(text("SELECT holder FROM pins")))


@pytest.mark.parametrize(
    ("history", "tables"), [("registry", registry_schema.tables), ("vault", vault_schema.tables)]
)
def test_migrations_create_the_tables_of_the_schema(tmp_path, history, tables):
    database = Database(tmp_path / "db.sqlite", history=history)
    with database.read_snapshot() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables) == []
    database.close()


def test_deliveries_from_before_reasons_have_none(tmp_path, vault_store):
    path = tmp_path / "registry.sqlite"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        upgrade(connection, "registry", version_table="alembic_version", revision="0006")
        columns = "student, method, round, accuracy_before, accuracy_after, kept, recorded_at, key"
        values = "'s', 'merge', 2, 0.25, 0.5, 1, '2026-01-01 00:00:00', 'k'"
        connection.execute(text(f"INSERT INTO deliveries ({columns}) VALUES ({values})"))
        connection.execute(text("INSERT INTO delivery_teachers VALUES (1, 0, 'r')"))
    store = RegistryStore(path, vault=vault_store)
    assert store.deliveries().items == (
        Delivery(
            student="s",
            teachers=("r",),
            method="merge",
            round=2,
            accuracy_before=0.25,
            accuracy_after=0.5,
            kept=True,
        ),
    )
    store.close()


@on_sqlite
def test_is_durable(durable, database):
    with database.read_snapshot() as connection:
        settings = [
            connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


def test_a_failing_write_rolls_back_only_its_own_changes(database):
    def fail(connection):
        insert_pin("lost")(connection)
        raise RequestRejectedError("No.")

    started = threading.Barrier(9)

    def put(holder):
        started.wait()
        database.write(insert_pin(holder))

    def fail_among_them():
        started.wait()
        with pytest.raises(RequestRejectedError, match=r"No\."):
            database.write(fail)

    threads = [threading.Thread(target=put, args=(f"h{i}",)) for i in range(8)]
    threads.append(threading.Thread(target=fail_among_them))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert holders(database) == [f"h{i}" for i in range(8)]


def test_waiting_writes_share_a_commit(database):
    commits = []
    busy = threading.Event()
    proceed = threading.Event()

    def slow(connection):
        busy.set()
        assert proceed.wait(LIMIT)

    def note(holder):
        def work(connection):
            insert_pin(holder)(connection)
            commits.append(connection)

        return work

    threads = [threading.Thread(target=database.write, args=(slow,))]
    threads[0].start()
    assert busy.wait(LIMIT)
    threads += [threading.Thread(target=database.write, args=(note(f"h{i}"),)) for i in range(20)]
    for thread in threads[1:]:
        thread.start()
    while database.waiting < 20:
        pass
    proceed.set()
    for thread in threads:
        thread.join()
    assert len(set(map(id, commits))) == 1
    assert len(holders(database)) == 20


@on_sqlite
def test_a_lost_transaction_fails_all_its_writes(database):
    # SQLite does so itself on a full disk: nothing of the group is stored, not even earlier writes.
    busy, proceed = threading.Event(), threading.Event()
    errors = {}

    def slow(connection):
        busy.set()
        assert proceed.wait(LIMIT)

    def lose(connection):
        connection.connection.driver_connection.rollback()
        raise ServiceError("Lost.")

    def write(name, work):
        try:
            database.write(work)
        except ServiceError as error:
            errors[name] = error.message

    works = {"slow": slow, "before": insert_pin("before"), "lost": lose, "after": insert_pin("after")}
    threads = []
    for waiting, (name, work) in enumerate(works.items()):
        threads.append(threading.Thread(target=write, args=(name, work)))
        threads[-1].start()
        assert busy.wait(LIMIT)
        while database.waiting < waiting:
            pass
    proceed.set()
    for thread in threads:
        thread.join()
    assert errors == dict.fromkeys(("before", "lost", "after"), "Lost.")
    assert holders(database) == []


def test_a_read_sees_one_state(database):
    with database.read_snapshot() as connection:
        count = text("SELECT count(*) FROM pins")
        assert connection.scalar(count) == 0
        database.write(insert_pin("h"))
        assert connection.scalar(count) == 0
    assert holders(database) == ["h"]


@on_sqlite
def test_a_second_service_cannot_open_the_file(database, place):
    with pytest.raises(ServiceError, match="in use by another service"):
        Database(place, history="vault")


def test_refuses_writes_after_close_and_opens_again(database, place):
    database.write(insert_pin("h"))
    database.close()
    database.close()
    with pytest.raises(ServiceUnavailableError, match="stopping"):
        database.write(insert_pin("late"))
    again = Database(place, history="vault")
    assert holders(again) == ["h"]
    again.close()


def test_a_file_that_is_no_database_is_an_error_in_one_sentence(tmp_path):
    (tmp_path / "db.sqlite").write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(ServiceError, match="cannot be opened: file is not a database"):
        Database(tmp_path / "db.sqlite", history="vault")


@on_sqlite
def test_a_database_of_a_newer_kuber_is_an_error_in_one_sentence(database, place):
    database.close()
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ServiceError, match="newer KUber"):
        Database(place, history="vault")


def test_a_folder_that_cannot_be_created_is_an_error_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match="cannot be created"):
        Database(tmp_path / "file" / "db.sqlite", history="vault")


@on_sqlite
def test_a_database_lost_at_runtime_is_an_error_in_one_sentence(database, place):
    # SQLite finds the truncated file malformed.
    database.write(insert_pin("h"))
    with sqlite3.connect(place) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    os.truncate(place, 5000)
    with pytest.raises(ServiceUnavailableError, match="The database cannot be"):
        holders(database)


def test_a_lock_by_name_is_held_by_one_thread(database):
    inside, overlaps = [], []

    def enter(names):
        with database.lock("blob", *names):
            inside.append(names)
            overlaps.append([other for other in inside if set(other) & set(names)])
            time.sleep(0.002)
            inside.remove(names)

    wanted = [("a",), ("a", "b"), ("b", "a"), ("c", "b"), ("c",)] * 4
    threads = [threading.Thread(target=enter, args=(names,)) for names in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(overlaps) == len(wanted)
    assert all(len(others) == 1 for others in overlaps)  # only itself


def test_a_lock_by_name_is_released_after_an_error(database):
    with pytest.raises(RequestRejectedError, match=r"No\."), database.lock("blob", "a"):
        raise RequestRejectedError("No.")
    with database.lock("blob", "a"), database.lock("another kind", "a"):
        pass


def test_a_write_that_a_stalled_database_does_not_store_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("kuber.services.db.database.WRITE_SECONDS", 0.01)
    going_on = threading.Event()
    with closing(Database(tmp_path / "db.sqlite", history="vault")) as database:

        def stall(_connection):
            assert going_on.wait(LIMIT)

        def write_and_give_up():
            with pytest.raises(ServiceUnavailableError):
                database.write(stall)

        stalled = threading.Thread(target=write_and_give_up)
        stalled.start()
        with pytest.raises(ServiceUnavailableError, match="has not stored the change within"):
            database.write(insert_pin("given up"))
        stalled.join()
        going_on.set()
        monkeypatch.undo()
        database.write(insert_pin("kept"))
        assert holders(database) == ["kept"]
