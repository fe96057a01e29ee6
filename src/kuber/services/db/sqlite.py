"""What is particular to SQLite: one file, which one process opens, and its pragmas."""

import sqlite3
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from kuber import tracing
from kuber.errors import InsufficientStorageError, KUberError, ServiceError, ServiceUnavailableError
from kuber.services.db.named_locks import NamedLocks

BUSY_SECONDS = 10
KEPT_OPEN = 40  # connections, as many as threads serve requests; opening one costs more than most reads


class SQLite:
    """The database in this file, which no second process can open meanwhile.

    Raises ServiceError when the file cannot be opened or is in use.
    """

    shared = False
    version_table = "alembic_version"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock = hold(path)
        self._locks = NamedLocks()
        self.reading = self.looking = _engine(path)
        self.writing: Engine = self.reading.execution_options(kuber_begin="BEGIN IMMEDIATE")

    def check(self, connection: Connection) -> None:
        """Any SQLite will do."""

    def save(self, connection: Connection) -> None:
        """Begin a piece of work that can be undone by itself."""
        # Straight to the driver: SQLAlchemy's own savepoints cost more than what a small write does.
        _driver(connection).execute("SAVEPOINT write")

    def undo(self, connection: Connection) -> bool:
        """Undo what was done since `save`: whether the transaction goes on."""
        base = _driver(connection)
        if not base.in_transaction:  # SQLite gave it up, on a full disk for one
            return False
        base.execute("ROLLBACK TO write")
        return True

    def release(self, connection: Connection) -> None:
        """End the piece of work."""
        _driver(connection).execute("RELEASE write")

    def told(self, error: Exception, act: str) -> KUberError:
        """The error as ours; `act` says what the database could not be: read, written."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return InsufficientStorageError(
                "The database cannot be written: its disk is full; make space there and try again."
            )
        return ServiceUnavailableError(f"The database cannot be {act}: {cause}.")

    def locked(self, names: Collection[str]) -> AbstractContextManager[None]:
        """Hold these locks: no other process is there to ask."""
        return self._locks.held(names)

    def close(self) -> None:
        """Let go of the file."""
        self.reading.dispose()
        self._lock.close()


def hold(path: Path) -> sqlite3.Connection:
    """An exclusive lock beside a file, in a folder that is made when missing; it ends with its process, however that
    ends. ServiceError when it is taken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(f"The folder {path.parent} cannot be made: {error.strerror}.") from None
    file = path.with_name(path.name + ".lock")
    try:
        connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise ServiceError(
                f"The folder {path.parent} is in use by another service; stop that one first."
            ) from None
        raise ServiceError(f"The folder {path.parent} cannot be written: {error}.") from None
    return connection


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=KEPT_OPEN,
        max_overflow=-1,
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late for savepoints and snapshots
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("kuber_begin", "BEGIN"))

    tracing.follow_statements(engine)
    return engine
