"""PostgreSQL backend: a server that several processes write to, one at a time."""

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
    first_line,
)
from kuber.services.db.named_locks import NamedLocks

EXAMPLE = "postgresql+psycopg://USER@HOST/NAME"
# Connections of one process at most: for reads by its event loop and by its threads, each with both engines; and for
# locks, which only a vault takes. One more writes.
LOOP_READERS, THREAD_READERS, LOCKERS = 6, 4, 8
_DISK_FULL = "53100"
_LOCK = "SELECT pg_advisory_lock(%s)"
_LOCK_OF_TRANSACTION = "SELECT pg_advisory_xact_lock(%s)"
_UNLOCK = "SELECT pg_advisory_unlock_all()"
# A server that vanishes without closing the connection is noticed within half a minute.
_CONNECT = {"connect_timeout": "10", "keepalives_idle": "10", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
# A stalled writer loses its lock; a transaction that waits for one fails in the end. Plans are made for the actual
# values: a generic plan does not know how short a page is. Nested loops suit all our queries, which look up a few
# rows; the other joins read whole tables where the planner guesses wrong.
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
    """Database at this URL. Writers with the same `history`, registry or vault, exclude each other.

    Raises SettingsError when the URL is not PostgreSQL's, or its driver is not installed.
    """

    shared = True

    def __init__(self, url: str, history: str) -> None:
        parsed = parse_url(url)
        self.name = without_password(parsed)
        self.version_table = f"{history}_version"  # so that registry and vault may share a database
        self._locks = NamedLocks()
        writer = _lock_number(f"write {history}")
        self._thread_readers = _Readers(parsed, asynchronous=False)
        # For the event loop: handing a query to a thread and back takes longer than answering it.
        self._loop_readers = _Readers(parsed, asynchronous=True)
        # Each statement sees the latest commit: a state from before the lock was acquired is of no use.
        self.write_engine = _engine(parsed, 1, isolation_level="READ COMMITTED")
        self._lock_engine = _engine(parsed, LOCKERS, isolation_level="AUTOCOMMIT")

        # Held until the commit ends, so that sequence numbers become visible in order, and a read within the
        # transaction still holds when it writes.
        @event.listens_for(self.write_engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(_LOCK_OF_TRANSACTION, (writer,))

    @property
    def snapshot_engine(self) -> Engine:
        """Engine whose transactions each see one state of the database."""
        return self._readers().snapshot

    @property
    def autocommit_engine(self) -> Engine:
        """Engine whose statements each see the latest commit: no message begins or ends a transaction."""
        return self._readers().autocommit

    def check(self, connection: Connection) -> None:
        """Raise ServiceError unless the database can hold any text."""
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise ServiceError(
                f"The database {self.name} has the encoding {encoding}; create one with the encoding UTF8."
            )

    def savepoint(self, connection: Connection) -> None:
        """Set the savepoint."""
        connection.exec_driver_sql("SAVEPOINT write")

    def rollback_to_savepoint(self, connection: Connection) -> bool:
        """Undo the changes since the savepoint. Return whether the transaction is still usable."""
        if connection.invalidated:  # the server is gone
            return False
        connection.exec_driver_sql("ROLLBACK TO write")
        return True

    def release_savepoint(self, connection: Connection) -> None:
        """Release the savepoint; the changes become part of the transaction."""
        connection.exec_driver_sql("RELEASE write")

    def translate_error(self, error: Exception, participle: str) -> KUberError:
        """Return the driver's error as a KUberError; `participle` is what failed: "read" or "written"."""
        if isinstance(error, DataError):  # text with a NUL, a number out of range: the sender's mistake
            return RequestRejectedError(f"The database refuses a value of the request: {_reason(error)}.")
        if getattr(getattr(error, "orig", None), "sqlstate", None) == _DISK_FULL:
            return InsufficientStorageError(
                "The database cannot be written: the disk of its server is full; free some space and try again."
            )
        return ServiceUnavailableError(f"The database cannot be {participle}: {_reason(error)}.")

    @contextmanager
    def lock(self, names: Collection[str]) -> Iterator[None]:
        """Hold these locks against every process on this database, for as long as our connection to it lasts.

        Raises ServiceUnavailableError when they cannot be acquired within 30 s, or were lost while they were held.
        """
        with self._locks.hold(names):  # at most one thread of this process waits at the server for each
            try:
                with self._lock_engine.connect() as connection:
                    try:
                        # In one order, so that two processes never wait for each other.
                        for number in sorted({_lock_number(f"lock {name}") for name in names}):
                            connection.exec_driver_sql(_LOCK, (number,))
                        yield
                    except BaseException:
                        with suppress(DBAPIError):
                            connection.exec_driver_sql(_UNLOCK)
                        raise
                    connection.exec_driver_sql(_UNLOCK)
            except (DBAPIError, TimeoutError) as error:
                raise ServiceUnavailableError(f"The lock of {', '.join(names)} is lost: {_reason(error)}.") from None

    def size(self, connection: Connection) -> int:
        """Return the bytes of the database."""
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())

    def close(self) -> None:
        """Close all connections."""
        for engine in (*self._thread_readers, self.write_engine, self._lock_engine):
            engine.dispose()

        async def dispose_loop_readers() -> None:
            for engine in self._loop_readers:
                await AsyncEngine(engine).dispose()

        with ThreadPoolExecutor(1) as pool:  # an event loop may already run in this thread
            pool.submit(asyncio.run, dispose_loop_readers()).result()

    def _readers(self) -> "_Readers":
        return self._loop_readers if in_greenlet() else self._thread_readers


class _Readers:
    """Read-only connections, for threads that block on the server, or for an event loop, which does not."""

    def __init__(self, url: URL, *, asynchronous: bool) -> None:
        connections = LOOP_READERS if asynchronous else THREAD_READERS
        self.snapshot = _engine(url, connections, asynchronous, isolation_level="REPEATABLE READ")
        options = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
        self.autocommit = _engine(url, connections, asynchronous, **options)
        for engine in self:
            event.listen(engine, "connect", _set_read_only)

    def __iter__(self) -> Iterator[Engine]:
        return iter((self.snapshot, self.autocommit))


def _set_read_only(connection: Any, _record: Any) -> None:
    _execute(connection, "SET default_transaction_read_only = on")


def parse_url(url: str) -> URL:
    """Parse a URL of PostgreSQL. SettingsError for others; it omits the URL, which may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql" or "@" in (parsed.host or ""):
        raise SettingsError(
            f"--database is not the address of a PostgreSQL database; use the form {EXAMPLE}, and in its parts write "
            "%40 for @ and %2F for /."
        )
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise SettingsError(f"KUber connects to PostgreSQL with psycopg; use an address of the form {EXAMPLE}.")
    return parsed.set(drivername="postgresql+psycopg")


def without_password(url: URL) -> str:
    """Return the URL without the password, which may also be in the query."""
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database).render_as_string()


def check_engine(url: URL) -> Engine:
    """Return an engine with one connection that reads, each statement on its own."""
    engine = _engine(url, 1, isolation_level="AUTOCOMMIT")
    event.listen(engine, "connect", _set_read_only)
    return engine


def _engine(url: URL, connections: int, asynchronous: bool = False, **options: Any) -> Engine:
    """Create an engine with at most so many connections; `asynchronous` for use in an event loop."""
    create = _create_async_engine if asynchronous else create_engine
    try:
        engine = create(
            url,
            connect_args={name: value for name, value in _CONNECT.items() if name not in url.query},
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
    def require_alive(connection: Any, _record: Any, _proxy: Any) -> None:
        if _is_closed(connection):  # then so are all others from before the server's restart
            raise InvalidatePoolError

    tracing.instrument_engine(engine)
    return engine


def _create_async_engine(url: URL, **options: Any) -> Engine:
    return create_async_engine(url, **options).sync_engine


def _execute(connection: Any, statements: str) -> None:
    """Execute statements outside any transaction."""
    before, connection.autocommit = connection.autocommit, True
    connection.cursor().execute(statements)
    connection.autocommit = before


def _is_closed(connection: Any) -> bool:
    """Whether the server has closed this idle connection: then its last message and the end of the stream are there.

    A query to find out would take as long as most of ours.
    """
    from psycopg import OperationalError

    driver = getattr(connection, "driver_connection", connection)
    try:
        poller = select.poll()
        poller.register(driver.fileno(), select.POLLIN)
        while poller.poll(0):  # it may also be a notification
            driver.pgconn.consume_input()
    except OperationalError:
        return True
    return bool(driver.closed)


def _lock_number(name: str) -> int:
    """Return the number of an advisory lock: 64 bits of a hash of its name."""
    return int.from_bytes(hashlib.sha256(f"kuber {name}".encode()).digest()[:8], signed=True)


def _reason(error: Exception) -> str:
    """Return the first line of the message of the server or its driver."""
    if isinstance(error, TimeoutError):
        return "all connections to it are in use; try again"
    return first_line(getattr(error, "orig", None) or error)
