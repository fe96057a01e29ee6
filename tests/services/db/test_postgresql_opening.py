"""Opening a PostgreSQL database: errors are one sentence, which never contains the password."""

import functools
import sys
from contextlib import closing

import pytest
from sqlalchemy import text

from kuber.errors import ServiceError, SettingsError
from kuber.services.db.database import Database
from kuber.services.db.postgresql import PostgreSQL
from kuber.services.registry.app import open_registry
from kuber.services.vault.store import VaultStore
from tests.fixtures.commands import called

SECRET = "s3cr3t"


@pytest.fixture
def secured(postgres):
    """Return a function of a password that returns the URL of a database which requires one."""
    postgres.execute(f"CREATE ROLE applicant LOGIN PASSWORD '{SECRET}'", "CREATE DATABASE secured OWNER applicant")
    yield lambda password: postgres.url("secured", "applicant", password)
    postgres.execute("DROP DATABASE secured WITH (FORCE)", "DROP ROLE applicant")


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "",
        "sqlite:///somewhere",
        "mysql://user:s3cr3t@host/name",
        "postgresql://user:s3cr3t@ho:st@host/name",
        "postgresql://user:s3cr3t@x@host/name",
        "postgresql+asyncpg://user:s3cr3t@host/name",
    ],
)
def test_an_invalid_url_is_an_error_without_the_password(url):
    with pytest.raises(SettingsError, match=r"postgresql\+psycopg://USER@HOST/NAME") as refused:
        Database(url, history="vault")
    assert "s3cr3t" not in refused.value.message


@pytest.mark.parametrize("query", ["", "?password=s3cr3t"])
def test_an_unreachable_server_is_an_error_without_the_password(query):
    with pytest.raises(ServiceError, match=r"cannot be opened: .*refused") as refused:
        Database(f"postgresql://user:s3cr3t@127.0.0.1:1/name{query}", history="vault")
    assert "\n" not in refused.value.message
    assert "s3cr3t" not in refused.value.message


def test_a_wrong_password_is_an_error_without_the_password(secured):
    with pytest.raises(ServiceError, match=r"cannot be opened: .*password authentication failed") as refused:
        Database(secured("wr0ng"), history="vault")
    assert "wr0ng" not in refused.value.message


@pytest.mark.parametrize("where", ["url", "environment"])
def test_the_password_may_be_in_the_url_or_the_environment(secured, where, monkeypatch):
    if where == "environment":
        monkeypatch.setenv("PGPASSWORD", SECRET)
    url = secured(SECRET if where == "url" else "")
    with closing(Database(url, history="vault")) as database, database.read_snapshot() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pins")) == 0


def test_an_unknown_database_is_an_error_in_one_sentence(postgres):
    with pytest.raises(ServiceError, match=r'cannot be opened: .*database "nowhere" does not exist'):
        Database(postgres.url("nowhere"), history="vault")


def test_a_database_of_another_encoding_is_an_error_in_one_sentence(postgres):
    postgres.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ServiceError, match="encoding LATIN1; create one with the encoding UTF8"):
        Database(postgres.url("latin"), history="vault")
    postgres.execute("DROP DATABASE latin")


def test_a_missing_driver_is_an_error_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"psycopg, which is not installed: pip install 'kuber\[postgresql\]'"):
        PostgreSQL("postgresql://host/name", "vault")


@pytest.mark.parametrize("service", ["registry", "vault"])
def test_the_command_ends_with_one_sentence_and_exit_code_4(service, tmp_path):
    url = "postgresql+psycopg://user:s3cr3t@127.0.0.1:1/name"
    folders = ["--data", tmp_path / "data", "--secret", tmp_path / "secret"]
    ended = called(service, "--port", "0", "--database", url, *folders)
    assert ended.returncode == 4
    assert "The database postgresql+psycopg://user@127.0.0.1:1/name cannot be opened" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "s3cr3t" not in ended.stdout + ended.stderr


def test_a_database_of_a_newer_kuber_is_an_error_in_one_sentence(postgres):
    newer = text("UPDATE vault_version SET version_num = '9999'")
    with postgres.database() as url:
        with closing(Database(url, history="vault")) as database:
            database.write(lambda connection: connection.execute(newer))
        with pytest.raises(ServiceError, match="newer KUber") as refused:
            Database(url, history="vault")
    assert "postgresql+psycopg://postgres@" in refused.value.message


@pytest.mark.parametrize("service", ["registry", "vault"])
def test_a_folder_with_its_own_database_is_not_ignored(service, tmp_path, registry_database, vault_database):
    (tmp_path / f"{service}.sqlite").touch()
    if service == "vault":
        opened = functools.partial(VaultStore, tmp_path, database=vault_database)
    else:
        options = {"vault": "http://127.0.0.1:1", "secret": "s" * 40, "database": registry_database}
        opened = open_registry(tmp_path, **options).__enter__
    with pytest.raises(ServiceError, match=f"holds a SQLite database .{service}.sqlite.*--data"):
        opened()


def test_a_vault_locks_its_folder_even_if_its_index_is_elsewhere(tmp_path, vault_database):
    first = VaultStore(tmp_path / "v", database=vault_database)
    with closing(first), pytest.raises(ServiceError, match="in use by another service"):
        VaultStore(tmp_path / "v", database=vault_database)
    VaultStore(tmp_path / "v", database=vault_database).close()
