"""A service's SQLite database: migrated at start, read in place, written by one thread that groups commits."""

import contextvars
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError

from kuber import tracing
from kuber.errors import InsufficientStorageError, ServiceError, ServiceUnavailableError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 10
GROUP = 256  # writes of one commit at most
KEPT_OPEN = 40  # connections, as many as threads serve requests; opening one costs more than most reads

T = TypeVar("T")


class Database:
    """One SQLite file and its writer thread; a second process cannot open it meanwhile.

    `history` names the folder of migrations. Raises ServiceError when the file cannot be opened, belongs to a newer
    KUber or is in use.
    """

    def __init__(self, path: Path, *, history: str) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"The folder {path.parent} cannot be made: {error.strerror}.") from None
        self._lock = _lock(path)
        self._engine = _engine(path)
        self._writing = self._engine.execution_options(kuber_begin="BEGIN IMMEDIATE")
        self.on_group: Callable[[int, float, bool], None] = lambda writes, seconds, done: None  # after each commit
        self._closed = False
        self._gate = threading.Lock()  # nothing is queued after the end mark
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        try:
            _migrate(self._engine, path, history)
        except BaseException:
            self._engine.dispose()
            self._lock.close()
            raise
        self._writer = threading.Thread(target=self._serve, name=f"{history}-writer", daemon=True)
        self._writer.start()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database for as long as it is open."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise ServiceUnavailableError(f"The database cannot be read: {error.orig}.") from None

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, once its changes are safely on disk.

        Calls of several threads share a commit. When `work` raises, its own changes are undone and the error is
        raised here.
        """
        task = _Write(work)
        with self._gate:
            if self._closed:
                raise ServiceUnavailableError("The service is stopping; ask again when it is up.")
            self._waiting.put(task)
        try:
            result: T = task.future.result()
        except IntegrityError:
            raise  # a mistake of ours: trying again does not help
        except (DBAPIError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise InsufficientStorageError(
                    "The database cannot be written: its disk is full; make space there and try again."
                ) from None
            raise ServiceUnavailableError(f"The database cannot be written: {cause}.") from None
        return result

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
        self._engine.dispose()
        self._lock.close()

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
            with self._writing.begin() as connection:
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

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.future: Future[Any] = Future()
        self._work = work
        self._context = contextvars.copy_context()  # statements belong to the trace of their request
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, connection: Connection) -> None:
        """Do the work, or leave no trace of it. Raises only when the transaction itself is lost."""
        # Straight to the driver: SQLAlchemy's own savepoints cost more than what a small write does.
        base = connection.connection.driver_connection
        assert base is not None
        base.execute("SAVEPOINT write")
        try:
            self._result = self._context.run(self._work, connection)
        except BaseException as error:
            if not base.in_transaction:  # SQLite gave it up, on a full disk for one
                raise
            self._error = error  # raised again in the thread that waits
            base.execute("ROLLBACK TO write")
        base.execute("RELEASE write")

    def settle(self) -> None:
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)


def _lock(path: Path) -> sqlite3.Connection:
    """An exclusive lock beside the database that ends with its process, however that ends."""
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


def _migrate(engine: Engine, path: Path, history: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / history).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with engine.connect().execution_options(kuber_begin="BEGIN IMMEDIATE") as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError:
        raise ServiceError(f"The database {path} was made by a newer KUber; upgrade this one.") from None
    except DBAPIError as error:
        raise ServiceError(f"The database {path} cannot be opened: {error.orig}.") from None
