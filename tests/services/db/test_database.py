"""The writer thread, the migrations and the lock."""

import os
import sqlite3
import threading
import time

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from kuber.domain.delivery import Delivery
from kuber.errors import RequestRejectedError, ServiceError, ServiceUnavailableError
from kuber.services.db.database import MIGRATIONS, Database
from kuber.services.registry import schema as registry_schema
from kuber.services.registry.store import RegistryStore
from kuber.services.vault import schema as vault_schema

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
def test_migrations_make_the_tables_that_the_code_uses(tmp_path, history, tables):
    database = Database(tmp_path / "db.sqlite", history=history)
    with database.read_snapshot() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables) == []
    database.close()


def test_deliveries_of_before_there_were_reasons_have_none(tmp_path, vault_store):
    path = tmp_path / "registry.sqlite"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / "registry"))
    config.set_main_option("path_separator", "os")
    with create_engine(f"sqlite:///{path}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        told = "student, method, round, accuracy_before, accuracy_after, kept, recorded_at, key"
        values = "'s', 'merge', 2, 0.25, 0.5, 1, '2026-01-01 00:00:00', 'k'"
        connection.execute(text(f"INSERT INTO deliveries ({told}) VALUES ({values})"))
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
def test_is_durable(database):
    with database.read_snapshot() as connection:
        settings = [
            connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


def test_a_failing_write_undoes_only_itself(database):
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


def test_writes_that_wait_share_a_commit(database):
    commits = []
    busy = threading.Event()
    go_on = threading.Event()

    def slow(connection):
        busy.set()
        assert go_on.wait(10)

    def note(holder):
        def work(connection):
            insert_pin(holder)(connection)
            commits.append(connection)

        return work

    threads = [threading.Thread(target=database.write, args=(slow,))]
    threads[0].start()
    assert busy.wait(10)
    threads += [threading.Thread(target=database.write, args=(note(f"h{i}"),)) for i in range(20)]
    for thread in threads[1:]:
        thread.start()
    while database.waiting < 20:
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(set(map(id, commits))) == 1
    assert len(holders(database)) == 20


@on_sqlite
def test_a_lost_transaction_is_told_to_all_that_were_part_of_it(database):
    # What SQLite does by itself on a full disk: nothing of the group is stored, also not what came before.
    busy, go_on = threading.Event(), threading.Event()
    told = {}

    def slow(connection):
        busy.set()
        assert go_on.wait(10)

    def lose(connection):
        connection.connection.driver_connection.rollback()
        raise ServiceError("Lost.")

    def write(name, work):
        try:
            database.write(work)
        except ServiceError as error:
            told[name] = error.message

    works = {"slow": slow, "before": insert_pin("before"), "lost": lose, "after": insert_pin("after")}
    threads = []
    for waiting, (name, work) in enumerate(works.items()):
        threads.append(threading.Thread(target=write, args=(name, work)))
        threads[-1].start()
        assert busy.wait(10)
        while database.waiting < waiting:
            pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert told == dict.fromkeys(("before", "lost", "after"), "Lost.")
    assert holders(database) == []


def test_a_read_sees_one_state(database):
    with database.read_snapshot() as connection:
        count = text("SELECT count(*) FROM pins")
        assert connection.scalar(count) == 0
        database.write(insert_pin("h"))
        assert connection.scalar(count) == 0
    assert holders(database) == ["h"]


@on_sqlite
def test_a_second_service_cannot_open_it(database, place):
    with pytest.raises(ServiceError, match="in use by another service"):
        Database(place, history="vault")


def test_opens_again_after_close_and_refuses_writes_meanwhile(database, place):
    database.write(insert_pin("h"))
    database.close()
    database.close()
    with pytest.raises(ServiceUnavailableError, match="stopping"):
        database.write(insert_pin("late"))
    again = Database(place, history="vault")
    assert holders(again) == ["h"]
    again.close()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "db.sqlite").write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(ServiceError, match="cannot be opened: file is not a database"):
        Database(tmp_path / "db.sqlite", history="vault")


@on_sqlite
def test_a_database_of_a_newer_kuber_is_one_sentence(database, place):
    database.close()
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ServiceError, match="newer KUber"):
        Database(place, history="vault")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match="cannot be created"):
        Database(tmp_path / "file" / "db.sqlite", history="vault")


@on_sqlite
def test_a_database_lost_while_in_use_is_one_sentence(database, place):
    # The file is cut short under the open database: SQLite finds it malformed.
    database.write(insert_pin("h"))
    with sqlite3.connect(place) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    os.truncate(place, 5000)
    with pytest.raises(ServiceUnavailableError, match="The database cannot be"):
        holders(database)


def test_a_lock_by_name_is_held_by_one_thread(database):
    inside, met = [], []

    def enter(names):
        with database.lock("blob", *names):
            inside.append(names)
            met.append([other for other in inside if set(other) & set(names)])
            time.sleep(0.002)
            inside.remove(names)

    wanted = [("a",), ("a", "b"), ("b", "a"), ("c", "b"), ("c",)] * 4
    threads = [threading.Thread(target=enter, args=(names,)) for names in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == len(wanted)
    assert all(len(others) == 1 for others in met)  # oneself


def test_a_lock_by_name_ends_with_a_failure(database):
    with pytest.raises(RequestRejectedError, match=r"No\."), database.lock("blob", "a"):
        raise RequestRejectedError("No.")
    with database.lock("blob", "a"), database.lock("another kind", "a"):
        pass
