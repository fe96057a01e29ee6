"""What is particular to PostgreSQL: a server that several processes write to, one after the other."""

import asyncio
import hashlib
import select
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InvalidatePoolError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import in_greenlet

from kuber import tracing
from kuber.errors import (
    InsufficientStorageError,
    KUberError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    SettingsError,
)
from kuber.services.db.named_locks import NamedLocks

EXAMPLE = "postgresql+psycopg://USER@HOST/NAME"
# Connections of one process at most: of its event loop and of its threads, for each of two ways to read; to hold
# locks, which only a vault does. One more writes.
LOOP_READERS, THREAD_READERS, LOCKERS = 6, 4, 8
_DISK_FULL = "53100"
_LOCK = "SELECT pg_advisory_lock(%s)"
_LOCK_OF_TRANSACTION = "SELECT pg_advisory_xact_lock(%s)"
_UNLOCK = "SELECT pg_advisory_unlock_all()"
# A machine that is gone without a word is noticed within half a minute.
_CONNECT = {"connect_timeout": "10", "keepalives_idle": "10", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
# A writer that stands still gives its lock back; who waits for one gets an answer. A plan is made for the values that
# are asked for: one that is made for any value does not know how short a page is. Everything is found by looking up a
# few rows; the other joins read whole tables where the planner guesses wrong.
_SESSION = """
SET TimeZone = 'UTC';
SET idle_in_transaction_session_timeout = '60s';
SET lock_timeout = '30s';
SET plan_cache_mode = force_custom_plan;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
"""


class PostgreSQL:
    """The database at this URL. `history` is the kind of what is stored: its writers come one after the other.

    Raises SettingsError when the URL is none of PostgreSQL, or its driver is not installed.
    """

    shared = True

    def __init__(self, url: str, history: str) -> None:
        place = _place(url)
        self.name = _shown(place)
        self.version_table = f"{history}_version"  # so that registry and vault may share a database
        self._locks = NamedLocks()
        writer = _number(f"write {history}")
        self._threads = _Readers(place, asynchronous=False)
        # For the event loop: to hand a question to a thread and back takes longer than to answer it.
        self._loop = _Readers(place, asynchronous=True)
        # Each statement sees what was committed before it: a state from before the lock was had is of no use.
        self.writing = _engine(place, 1, isolation_level="READ COMMITTED")
        self._locking = _engine(place, LOCKERS, isolation_level="AUTOCOMMIT")

        # Held to the end of the commit, so that numbers appear in the order in which they were given, and what was
        # looked up before it is written is still so.
        @event.listens_for(self.writing, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(_LOCK_OF_TRANSACTION, (writer,))

    @property
    def reading(self) -> Engine:
        """Whose transactions see one state."""
        return (self._loop if in_greenlet() else self._threads).whole

    @property
    def looking(self) -> Engine:
        """Whose statements each see the state of their moment: nothing is sent to begin and end a transaction."""
        return (self._loop if in_greenlet() else self._threads).single

    def check(self, connection: Connection) -> None:
        """ServiceError unless the database can hold any text."""
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise ServiceError(
                f"The database {self.name} has the encoding {encoding}; create one with the encoding UTF8."
            )

    def save(self, connection: Connection) -> None:
        """Begin a piece of work that can be undone by itself."""
        connection.exec_driver_sql("SAVEPOINT write")

    def undo(self, connection: Connection) -> bool:
        """Undo what was done since `save`: whether the transaction goes on."""
        if connection.invalidated:  # the server is gone
            return False
        connection.exec_driver_sql("ROLLBACK TO write")
        return True

    def release(self, connection: Connection) -> None:
        """End the piece of work."""
        connection.exec_driver_sql("RELEASE write")

    def told(self, error: Exception, act: str) -> KUberError:
        """The error as ours; `act` says what the database could not be: read, written."""
        if isinstance(error, DataError):  # text with a NUL, a number out of range: whoever sent it can know
            return RequestRejectedError(f"The database does not take a value of the request: {_reason(error)}.")
        if getattr(getattr(error, "orig", None), "sqlstate", None) == _DISK_FULL:
            return InsufficientStorageError(
                "The database cannot be written: the disk of its server is full; make space there and try again."
            )
        return ServiceUnavailableError(f"The database cannot be {act}: {_reason(error)}.")

    @contextmanager
    def locked(self, names: Collection[str]) -> Iterator[None]:
        """Hold these locks against every process on this database, for as long as our connection to it holds.

        ServiceUnavailableError when they cannot be had within 30 s, or were lost while they were held.
        """
        with self._locks.held(names):  # at most one thread of ours waits at the server for each
            try:
                with self._locking.connect() as connection:
                    try:
                        # One order, so that two processes never wait for each other.
                        for number in sorted({_number(f"lock {name}") for name in names}):
                            connection.exec_driver_sql(_LOCK, (number,))
                        yield
                    except BaseException:
                        with suppress(DBAPIError):
                            connection.exec_driver_sql(_UNLOCK)
                        raise
                    connection.exec_driver_sql(_UNLOCK)
            except (DBAPIError, TimeoutError) as error:
                raise ServiceUnavailableError(f"The lock of {', '.join(names)} is lost: {_reason(error)}.") from None

    def close(self) -> None:
        """Let go of the server."""
        for engine in (*self._threads, self.writing, self._locking):
            engine.dispose()

        async def leave() -> None:
            for engine in self._loop:
                await AsyncEngine(engine).dispose()

        with ThreadPoolExecutor(1) as elsewhere:  # here a loop may run already
            elsewhere.submit(asyncio.run, leave()).result()


class _Readers:
    """Connections that only read, of threads that wait for the server, or of an event loop that does not."""

    def __init__(self, place: URL, *, asynchronous: bool) -> None:
        most = LOOP_READERS if asynchronous else THREAD_READERS
        self.whole = _engine(place, most, asynchronous, isolation_level="REPEATABLE READ")
        options = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
        self.single = _engine(place, most, asynchronous, **options)
        for engine in self:
            event.listen(engine, "connect", _only_read)

    def __iter__(self) -> Iterator[Engine]:
        return iter((self.whole, self.single))


def _only_read(connection: Any, _record: Any) -> None:
    _execute(connection, "SET default_transaction_read_only = on")


def _place(url: str) -> URL:
    """What a URL names. SettingsError when it is none; the URL is not repeated, as a password may stand in it."""
    try:
        place = make_url(url)
    except (ArgumentError, ValueError):
        place = None
    if place is None or place.get_backend_name() != "postgresql" or "@" in (place.host or ""):
        raise SettingsError(
            f"--database is no address of a PostgreSQL database; give one like {EXAMPLE}, in whose name and password "
            "@ is written %40 and / is written %2F."
        )
    if place.drivername not in ("postgresql", "postgresql+psycopg"):
        raise SettingsError(f"KUber speaks to PostgreSQL through psycopg; give an address like {EXAMPLE}.")
    return place.set(drivername="postgresql+psycopg")


def _shown(place: URL) -> str:
    """A URL without its password, wherever that stands."""
    shown = URL.create(place.drivername, place.username, None, place.host, place.port, place.database)
    return shown.render_as_string()


def _engine(place: URL, connections: int, asynchronous: bool = False, **options: Any) -> Engine:
    """So many connections at most. Threads wait on them for the server; `asynchronous`, an event loop goes on."""
    make = _asynchronous if asynchronous else create_engine
    try:
        engine = make(
            place,
            connect_args={name: value for name, value in _CONNECT.items() if name not in place.query},
            pool_size=connections,
            max_overflow=0,
            pool_timeout=10,
            pool_use_lifo=True,
            **options,
        )
    except ImportError:
        raise SettingsError(
            "PostgreSQL needs the driver psycopg, which is not installed: pip install 'kuber[postgresql]'."
        ) from None

    @event.listens_for(engine, "connect", insert=True)
    def configure(connection: Any, _record: Any) -> None:
        _execute(connection, _SESSION)

    @event.listens_for(engine, "checkout")
    def still_there(connection: Any, _record: Any, _proxy: Any) -> None:
        if _is_ended(connection):  # and so are those from before the server's restart
            raise InvalidatePoolError

    tracing.follow_statements(engine)
    return engine


def _asynchronous(place: URL, **options: Any) -> Engine:
    return create_async_engine(place, **options).sync_engine


def _execute(connection: Any, statements: str) -> None:
    """For the whole session."""
    before, connection.autocommit = connection.autocommit, True
    connection.cursor().execute(statements)
    connection.autocommit = before


def _is_ended(connection: Any) -> bool:
    """Whether the server let go of a connection that nobody uses: then there is its farewell to read, and the end.

    To ask the server would take as long as most of what it is asked then.
    """
    from psycopg import OperationalError

    driver = getattr(connection, "driver_connection", connection)
    try:
        watch = select.poll()
        watch.register(driver.fileno(), select.POLLIN)
        while watch.poll(0):  # it may also be news that we did not ask for
            driver.pgconn.consume_input()
    except OperationalError:
        return True
    return bool(driver.closed)


def _number(name: str) -> int:
    """The number of an advisory lock: 64 bits of a hash."""
    return int.from_bytes(hashlib.sha256(f"kuber {name}".encode()).digest()[:8], signed=True)


def _reason(error: Exception) -> str:
    """The first line of what the server, or its driver, says."""
    if isinstance(error, TimeoutError):
        return "all connections to it are in use; try again"
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or ["no reason given"]
    return lines[0].rstrip(".")
