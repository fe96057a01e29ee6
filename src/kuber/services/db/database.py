"""A service's database: migrated at start, read in place, written by one thread that groups commits."""

import contextvars
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError
from sqlalchemy.util.concurrency import greenlet_spawn

from kuber.errors import KUberError, ServiceError, ServiceUnavailableError
from kuber.services.db.postgresql import PostgreSQL
from kuber.services.db.sqlite import SQLite

MIGRATIONS = Path(__file__).parent / "migrations"
GROUP = 256  # writes of one commit at most

P = ParamSpec("P")
T = TypeVar("T")

_FAILURES = (DBAPIError, TimeoutError, sqlite3.Error)


class Backend(Protocol):
    """What is particular to one kind of database."""

    name: str  # in sentences; no password
    version_table: str  # of its migrations
    writing: Engine  # whose transactions begin as the only writer

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too."""
        ...

    @property
    def reading(self) -> Engine:
        """Whose transactions see one state."""
        ...

    @property
    def looking(self) -> Engine:
        """Whose statements each see the state of their moment, where that is quicker."""
        ...

    def check(self, connection: Connection) -> None:
        """ServiceError unless the database can be used."""
        ...

    def save(self, connection: Connection) -> None:
        """Begin a piece of work that can be undone by itself."""
        ...

    def undo(self, connection: Connection) -> bool:
        """Undo what was done since `save`: whether the transaction goes on."""
        ...

    def release(self, connection: Connection) -> None:
        """End the piece of work."""
        ...

    def told(self, error: Exception, act: str) -> KUberError:
        """The error as ours; `act` says what the database could not be: read, written."""
        ...

    def locked(self, names: Collection[str]) -> AbstractContextManager[None]:
        """Hold these locks against everybody who uses the database."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def chosen(url: str | None, file: Path) -> Path | str:
    """The database that is named, or this file. ServiceError when one is named and the file is there too: it would be
    left aside unseen, with all that it holds.
    """
    if url is not None and file.exists():
        raise ServiceError(
            f"The folder {file.parent} holds a SQLite database ({file.name}), which --database would leave aside; "
            "name another folder with --data, or move that file away."
        )
    return file if url is None else url


class Database:
    """A SQLite file (a path) or a PostgreSQL database (a URL), and its writer thread.

    `history` names the folder of migrations. Raises SettingsError for a URL of no database, ServiceError when the
    database cannot be opened, belongs to a newer KUber or, where it is a file, is in use by another process.
    """

    def __init__(self, place: Path | str, *, history: str) -> None:
        self._backend: Backend = SQLite(place) if isinstance(place, Path) else PostgreSQL(place, history)
        self.on_group: Callable[[int, float, bool], None] = lambda writes, seconds, done: None  # after each commit
        self._closed = False
        self._gate = threading.Lock()  # nothing is queued after the end mark
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        try:
            _migrate(self._backend, history)
        except BaseException:
            self._backend.close()
            raise
        self._writer = threading.Thread(target=self._serve, name=f"{history}-writer", daemon=True)
        self._writer.start()

    @property
    def shared(self) -> bool:
        """Whether other processes write here too: what can change is to be read anew each time."""
        return self._backend.shared

    def read(self) -> AbstractContextManager[Connection]:
        """A connection that sees one state of the database for as long as it is open."""
        return self._connected(self._backend.reading)

    def look(self) -> AbstractContextManager[Connection]:
        """A connection for what one statement tells: a second may see a later state."""
        return self._connected(self._backend.looking)

    async def ask(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `read` returns, which reads this database, without a change of threads: a file in place, and while a
        server is waited for the event loop goes on.
        """
        if self._backend.shared:
            return await greenlet_spawn(partial(read, *args, **kwargs))
        return read(*args, **kwargs)

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, once its changes are safely on disk.

        Calls of several threads share a commit. When `work` raises, its own changes are undone and the error is
        raised here. ServiceUnavailableError when the database is lost, also where nobody can know whether its last
        commit was made: the same write again must do no harm.
        """
        task = _Write(work, self._backend)
        with self._gate:
            if self._closed:
                raise ServiceUnavailableError("The service is stopping; ask again when it is up.")
            self._waiting.put(task)
        try:
            result: T = task.future.result()
        except IntegrityError:
            raise  # a mistake of ours: trying again does not help
        except _FAILURES as error:
            raise self._backend.told(error, "written") from None
        return result

    @contextmanager
    def locked(self, kind: str, *names: str) -> Iterator[None]:
        """Hold the locks of these names of a kind against every thread and process that uses this database.

        ServiceUnavailableError when they cannot be had, or were lost with the connection to the server. Only who
        holds the lock of a collection asks for others beside it.
        """
        with self._backend.locked(sorted({f"{kind} {name}" for name in names})):
            yield

    @property
    def waiting(self) -> int:
        """How many writes wait for the next commit."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Finish the writes that wait, then close; closing again does nothing."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._waiting.put(None)
        self._writer.join()
        self._backend.close()

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.connect() as connection:
                yield connection
        except _FAILURES as error:
            raise self._backend.told(error, "read") from None

    def _serve(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, ended = self._gather(first)
            self._commit(group)
            if ended:
                return

    def _gather(self, first: "_Write") -> tuple[list["_Write"], bool]:
        group = [first]
        while len(group) < GROUP:
            try:
                task = self._waiting.get_nowait()
            except queue.Empty:
                break
            if task is None:
                return group, True
            group.append(task)
        return group, False

    def _commit(self, group: list["_Write"]) -> None:
        began = time.perf_counter()
        try:
            with self._backend.writing.begin() as connection:
                for task in group:
                    task.run(connection)
        except BaseException as error:  # noqa: BLE001  the threads that wait must learn of it, whatever it is
            self.on_group(len(group), time.perf_counter() - began, False)
            for task in group:
                task.future.set_exception(error)
        else:
            self.on_group(len(group), time.perf_counter() - began, True)
            for task in group:
                task.settle()


class _Write:
    """A piece of work for the writer thread, and what came of it."""

    def __init__(self, work: Callable[[Connection], Any], backend: Backend) -> None:
        self.future: Future[Any] = Future()
        self._backend = backend
        self._work = work
        self._context = contextvars.copy_context()  # statements belong to the trace of their request
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, connection: Connection) -> None:
        """Do the work, or leave no trace of it. Raises only when the transaction itself is lost."""
        self._backend.save(connection)
        try:
            self._result = self._context.run(self._work, connection)
        except BaseException as error:
            if not self._backend.undo(connection):
                raise
            self._error = error  # raised again in the thread that waits
        self._backend.release(connection)

    def settle(self) -> None:
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)


def _migrate(backend: Backend, history: str) -> None:
    """Bring the database to this version, as its only writer."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / history).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["version_table"] = backend.version_table
    try:
        with backend.writing.begin() as connection:
            backend.check(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError:
        raise ServiceError(f"The database {backend.name} was made by a newer KUber; upgrade this one.") from None
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0].rstrip(".")
        raise ServiceError(f"The database {backend.name} cannot be opened: {reason}.") from None
