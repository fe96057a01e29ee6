"""Database of a service: migrated at start, written by one thread that groups commits."""

import contextvars
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError
from sqlalchemy.util.concurrency import greenlet_spawn

from kuber.errors import KUberError, ServiceError, ServiceUnavailableError, first_line
from kuber.services.db.postgresql import PostgreSQL
from kuber.services.db.sqlite import SQLite

MIGRATIONS = Path(__file__).parent / "migrations"
MAX_GROUP = 256  # writes per commit
WRITE_SECONDS = 30.0  # for which a caller waits for its write

P = ParamSpec("P")
T = TypeVar("T")

_FAILURES = (DBAPIError, TimeoutError, sqlite3.Error)


class Backend(Protocol):
    """The part of a database that differs between SQLite and PostgreSQL."""

    name: str  # for messages, without a password
    version_table: str  # where Alembic keeps the revision
    write_engine: Engine  # its transactions hold the lock of the only writer

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too."""

    @property
    def snapshot_engine(self) -> Engine:
        """Engine whose transactions each see one state of the database."""

    @property
    def autocommit_engine(self) -> Engine:
        """Engine whose statements each see the latest commit, where that is faster."""

    def check(self, connection: Connection) -> None:
        """Raise ServiceError unless the database can be used."""

    def savepoint(self, connection: Connection) -> None:
        """Set the savepoint."""

    def rollback_to_savepoint(self, connection: Connection) -> bool:
        """Undo the changes since the savepoint. Return whether the transaction is still usable."""

    def release_savepoint(self, connection: Connection) -> None:
        """Release the savepoint; the changes become part of the transaction."""

    def translate_error(self, error: Exception, participle: str) -> KUberError:
        """Return the driver's error as a KUberError; `participle` is what failed: "read" or "written"."""

    def lock(self, names: Collection[str]) -> AbstractContextManager[None]:
        """Hold these locks against every user of the database."""

    def size(self, connection: Connection) -> int:
        """Return the bytes that the database takes."""

    def close(self) -> None:
        """Close all connections."""


def database_location(url: str | None, file: Path) -> Path | str:
    """Return `url`, or `file` without one. ServiceError when both exist: the data in the file would be ignored."""
    if url is not None and file.exists():
        raise ServiceError(
            f"The folder {file.parent} holds a SQLite database ({file.name}), which --database would ignore; "
            "choose another folder with --data, or move that file away."
        )
    return file if url is None else url


class Database:
    """SQLite file (a path) or PostgreSQL database (a URL), with its writer thread.

    `history` names the folder of migrations. Raises SettingsError for a URL that is not PostgreSQL's, ServiceError
    when the database cannot be opened, belongs to a newer KUber or, being a file, is in use by another process.
    """

    def __init__(self, location: Path | str, *, history: str) -> None:
        self._backend: Backend = SQLite(location) if isinstance(location, Path) else PostgreSQL(location, history)
        self.on_commit: Callable[[int, float, bool], None] = lambda writes, seconds, succeeded: None
        self._closed = False
        self._gate = threading.Lock()  # nothing is queued after the end mark
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        try:
            _migrate(self._backend, history)
        except BaseException:
            self._backend.close()
            raise
        self._writer = threading.Thread(target=self._run_writer, name=f"{history}-writer", daemon=True)
        self._writer.start()

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too, so that nothing that can change may be cached."""
        return self._backend.shared

    def read_snapshot(self) -> AbstractContextManager[Connection]:
        """Open a connection that sees one state of the database for as long as it is open."""
        return self._connect(self._backend.snapshot_engine)

    def read_latest(self) -> AbstractContextManager[Connection]:
        """Open a connection whose statements each see the latest commit."""
        return self._connect(self._backend.autocommit_engine)

    async def run_read(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `read`, which reads this database, in the thread of the event loop.

        A file is read in place. While a server computes its answer, the event loop serves other requests.
        """
        if self._backend.shared:
            return await greenlet_spawn(partial(read, *args, **kwargs))
        return read(*args, **kwargs)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the writer thread and return its result once its changes are committed.

        Calls from several threads share a commit. When `work` raises, its own changes are rolled back and the error
        is raised here. Raises ServiceUnavailableError when the database is lost or does not answer for WRITE_SECONDS,
        even where the last commit may have succeeded: `work` must be safe to repeat.
        """
        write = _Write(work, self._backend)
        with self._gate:
            if self._closed:
                raise ServiceUnavailableError("The service is stopping; try again when it is up.")
            self._queue.put(write)
        with suppress(FutureTimeoutError):
            write.future.exception(WRITE_SECONDS)
        if write.future.cancel():  # not when it is done
            raise ServiceUnavailableError(
                f"The database has not stored the change within {WRITE_SECONDS:.0f} s; try again later."
            )
        try:
            result: T = write.future.result()
        except IntegrityError:
            raise  # a bug of ours: trying again does not help
        except _FAILURES as error:
            raise self._backend.translate_error(error, "written") from None
        return result

    def lock(self, kind: str, *names: str) -> AbstractContextManager[None]:
        """Hold the locks of these names, of one kind, against every thread and process that uses this database.

        Raises ServiceUnavailableError when they cannot be acquired, or were lost with the connection to the server.
        Only the holder of the lock of a collection may take further ones.
        """
        return self._backend.lock(sorted({f"{kind} {name}" for name in names}))

    def size(self, connection: Connection) -> int:
        """Return the bytes that the database takes; on a server, those of both services if they share it."""
        return self._backend.size(connection)

    @property
    def waiting(self) -> int:
        """Number of writes that wait for the next commit."""
        return self._queue.qsize()

    def close(self) -> None:
        """Commit the waiting writes, then close. Idempotent."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._writer.join()
        self._backend.close()

    @contextmanager
    def _connect(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.connect() as connection:
                yield connection
        except _FAILURES as error:
            raise self._backend.translate_error(error, "read") from None

    def _run_writer(self) -> None:
        while (first := self._queue.get()) is not None:
            group, closing = self._next_group(first)
            self._commit(group)
            if closing:
                return

    def _next_group(self, first: "_Write") -> tuple[list["_Write"], bool]:
        """Return the waiting writes, at most MAX_GROUP, and whether the end mark followed them."""
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                break
            if write is None:
                return group, True
            group.append(write)
        return group, False

    def _commit(self, group: list["_Write"]) -> None:
        began = time.perf_counter()
        failure: BaseException | None = None
        try:
            with self._backend.write_engine.begin() as connection:
                for write in group:
                    write.run(connection)
        except BaseException as error:  # noqa: BLE001  the waiting threads must learn of it, whatever it is
            failure = error
        self.on_commit(len(group), time.perf_counter() - began, failure is None)
        for write in group:
            write.finish(failure)


class _Write:
    """Work for the writer thread, and its result or error."""

    def __init__(self, work: Callable[[Connection], Any], backend: Backend) -> None:
        self.future: Future[Any] = Future()
        self._backend = backend
        self._work = work
        self._context = contextvars.copy_context()  # statements belong to the trace of their request
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, connection: Connection) -> None:
        """Do the work, or roll its changes back. Raises only when the whole transaction is lost."""
        if self.future.cancelled():
            return
        self._backend.savepoint(connection)
        try:
            self._result = self._context.run(self._work, connection)
        except BaseException as error:
            if not self._backend.rollback_to_savepoint(connection):
                raise
            self._error = error  # raised in the waiting thread
        self._backend.release_savepoint(connection)

    def finish(self, failure: BaseException | None) -> None:
        """Wake the waiting thread; `failure` is why the commit failed."""
        error = failure or self._error
        with suppress(InvalidStateError):  # nobody waits for it any more
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(self._result)


def upgrade(connection: Connection, history: str, *, version_table: str, revision: str = "head") -> None:
    """Migrate the database of this connection to a revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("version_locations", str(MIGRATIONS / history / "versions").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes |= {"connection": connection, "version_table": version_table}
    command.upgrade(config, revision)


def _migrate(backend: Backend, history: str) -> None:
    """Upgrade the schema to this version of KUber, as the only writer."""
    try:
        with backend.write_engine.begin() as connection:
            backend.check(connection)
            upgrade(connection, history, version_table=backend.version_table)
    except CommandError:
        raise ServiceError(f"The database {backend.name} was made by a newer KUber; upgrade this one.") from None
    except DBAPIError as error:
        reason = first_line(error.orig or error)
        raise ServiceError(f"The database {backend.name} cannot be opened: {reason}.") from None
