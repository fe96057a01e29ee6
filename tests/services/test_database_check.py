"""Databases of a hub on disk: damaged pages and lost rows are found before anybody reads them."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest

from kuber.cli.hub_maintenance import _check_databases
from kuber.services import database_check
from kuber.services.backup_manifest import Manifest, newest_record, remember_backup, write_manifest
from kuber.services.database_check import check_databases
from kuber.services.db.database import Database
from kuber.services.db.integrity import assigned_numbers, connect
from kuber.services.db.postgresql_check import PostgreSQLReport

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path):
    """A hub's registry with some audit entries, and the folder of its last backup."""
    path = tmp_path / "registry" / "registry.sqlite"
    Database(path, history="registry").close()
    add_entries(path, 2000)
    back_up(tmp_path, path)
    return tmp_path


def add_entries(path, count):
    with closing(sqlite3.connect(path)) as connection:
        rows = [("2026-01-01 00:00:00", "a" * 32, "report", "b" * 32)] * count
        connection.executemany("INSERT INTO audit (time, actor, act, subject) VALUES (?, ?, ?, ?)", rows)
        connection.commit()


def back_up(folder, path):
    with closing(connect(path)) as connection:
        manifest = Manifest(made_at=NOW, assigned=assigned_numbers(connection), newest=newest_record(connection))
    (folder / "backup").mkdir(exist_ok=True)
    write_manifest(folder / "backup", manifest)
    remember_backup(folder / "registry", folder / "backup")


def check(folder, **options):
    return check_databases(folder / "registry", folder / "vault", **options)


def test_a_whole_database_has_no_fault(folder):
    add_entries(folder / "registry" / "registry.sqlite", 10)
    found = check(folder)
    assert (found.faults, found.compared_with) == ((), folder / "backup")
    assert sorted(path.name for path in (folder / "registry").iterdir()) == [
        "last-backup.json",
        "registry.sqlite",
        "registry.sqlite.lock",
    ]


def test_a_spoilt_page_is_found_before_it_is_read(folder):
    path = folder / "registry" / "registry.sqlite"
    data = bytearray(path.read_bytes())
    place = len(data) // 4096 // 2 * 4096
    data[place : place + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    (fault,) = check(folder).faults
    assert fault.startswith(f"The database {path} is damaged (")
    assert fault.endswith("stop the services, and restore a backup.")


def test_a_database_without_its_newest_rows_has_lost_them(folder):
    path = folder / "registry" / "registry.sqlite"
    older = folder / "older.sqlite"
    shutil.copy(path, older)
    add_entries(path, 5)
    back_up(folder, path)
    shutil.copy(older, path)  # as after the deletion of the write-ahead log
    (fault,) = check(folder).faults
    assert "has lost 5 audit entries that the backup of 2026-01-02 03:04 UTC" in fault


def test_rows_that_retention_deletes_are_not_lost(folder):
    with closing(sqlite3.connect(folder / "registry" / "registry.sqlite")) as connection:
        connection.execute("DELETE FROM audit")
        connection.commit()
    assert check(folder).faults == ()


def test_a_backup_that_is_gone_is_not_compared_with(folder):
    shutil.rmtree(folder / "backup")
    found = check(folder)
    assert (found.faults, found.compared_with) == ((), None)


def test_the_output_says_what_was_and_was_not_checked(folder, monkeypatch, capsys):
    made = PostgreSQLReport(database="postgresql://hub", checked=["all 3 rows"], unchecked=["indexes, as it must"])
    monkeypatch.setattr(database_check, "check_postgresql", lambda url, tables: made)
    urls = {"registry": "postgresql://hub", "vault": None}
    assert _check_databases(folder / "nothing", folder / "nothing", None, urls)
    assert capsys.readouterr().out.splitlines() == [
        "postgresql://hub: checked all 3 rows; 0 faults.",
        "postgresql://hub: NOT checked: indexes, as it must.",
    ]
    made.faults.append("It is damaged.")
    assert not _check_databases(folder / "registry", folder / "vault", None, urls)
    assert "postgresql://hub: It is damaged." in capsys.readouterr().out
