"""SQLite backend: one file, opened by one process."""

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
SYNCHRONOUS = "FULL"  # a commit that has returned is on the disk
POOL_SIZE = 40  # connections, as many as threads serve requests; opening one costs more than most reads


class SQLite:
    """Database in this file, which no second process can open at the same time.

    Raises ServiceError when the file cannot be opened or is in use.
    """

    shared = False
    version_table = "alembic_version"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file_lock = lock_file(path)
        self._locks = NamedLocks()
        self.snapshot_engine = self.autocommit_engine = _engine(path, begin="BEGIN", connections=POOL_SIZE)
        self.write_engine = _engine(path, begin="BEGIN IMMEDIATE", connections=1)

    def check(self, connection: Connection) -> None:
        """Accept any SQLite database."""

    def savepoint(self, connection: Connection) -> None:
        """Set the savepoint."""
        # Straight to the driver: SQLAlchemy's own savepoints cost more than a small write.
        _driver(connection).execute("SAVEPOINT write")

    def rollback_to_savepoint(self, connection: Connection) -> bool:
        """Undo the changes since the savepoint. Return whether the transaction is still usable."""
        driver = _driver(connection)
        if not driver.in_transaction:  # SQLite rolled all of it back, on a full disk for example
            return False
        driver.execute("ROLLBACK TO write")
        return True

    def release_savepoint(self, connection: Connection) -> None:
        """Release the savepoint; the changes become part of the transaction."""
        _driver(connection).execute("RELEASE write")

    def translate_error(self, error: Exception, participle: str) -> KUberError:
        """Return the driver's error as a KUberError; `participle` is what failed: "read" or "written"."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return InsufficientStorageError(
                "The database cannot be written: its disk is full; free some space and try again."
            )
        return ServiceUnavailableError(f"The database cannot be {participle}: {cause}.")

    def lock(self, names: Collection[str]) -> AbstractContextManager[None]:
        """Hold these locks against other threads: no other process has the file open."""
        return self._locks.hold(names)

    def size(self, connection: Connection) -> int:
        """Return the bytes of the file and of its write-ahead log."""
        files = (Path(f"{self.name}{suffix}") for suffix in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the file and release its lock."""
        for engine in (self.snapshot_engine, self.write_engine):
            engine.dispose()
        self._file_lock.close()


def lock_file(path: Path) -> sqlite3.Connection:
    """Create the folder of this file and lock the file exclusively, until the process ends, however it ends.

    The lock is a file beside it. ServiceError when another process holds the lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(f"The folder {path.parent} cannot be created: {error.strerror}.") from None
    lock = path.with_name(path.name + ".lock")
    try:
        connection = sqlite3.connect(lock, timeout=0, isolation_level=None, check_same_thread=False)
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


def _engine(path: Path, *, begin: str, connections: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=connections,
        max_overflow=-1,
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late for savepoints and snapshots
        for pragma in ("journal_mode = WAL", f"synchronous = {SYNCHRONOUS}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    def do_begin(connection: Any) -> None:
        connection.driver_connection.execute(begin)

    # Not as a listener: an engine that has one looks for more at each statement, a tenth of its time.
    engine.dialect.do_begin = do_begin  # type: ignore[method-assign,assignment]
    tracing.instrument_engine(engine)
    return engine
