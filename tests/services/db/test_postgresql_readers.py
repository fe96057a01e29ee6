"""Reads from PostgreSQL by threads, and by the event loop, which serves other requests meanwhile."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, create_engine, text

from kuber.domain.query import Query
from kuber.errors import ServiceUnavailableError
from kuber.services.db.postgresql import LOOP_READERS
from kuber.services.registry.store import RegistryStore


def in_a_loop(coroutine):
    """Run a coroutine in another thread: this one may have a running loop, after tests with a browser."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@dataclass
class BlockingStore:
    """Store on which the statement BLOCK waits until `proceed` is called."""

    BLOCK = "SELECT 1 FROM pg_advisory_xact_lock(7)"

    store: RegistryStore
    holder: Connection

    def run(self, statement):
        """Return the thread in which a statement ran, and its result."""

        def read():
            with self.store.database.read_latest() as connection:
                return threading.get_ident(), connection.scalar(text(statement))

        return self.store.database.run_read(read)

    def proceed(self):
        self.holder.execute(text("SELECT pg_advisory_unlock(7)"))


@pytest.fixture
def blocking(registry_database, vault_store):
    with (
        closing(RegistryStore(registry_database, vault=vault_store)) as store,
        create_engine(registry_database).connect() as holder,
    ):
        holder.execute(text("SELECT pg_advisory_lock(7)"))
        yield BlockingStore(store, holder)


def test_the_event_loop_serves_other_reads_while_one_waits(blocking):
    async def both():
        waiting = asyncio.create_task(blocking.run(blocking.BLOCK))
        quick = await blocking.run("SELECT 2")
        assert not waiting.done()
        blocking.proceed()
        return threading.get_ident(), await waiting, quick

    here, *answers = in_a_loop(both())
    assert answers == [(here, 1), (here, 2)]


def test_cancelled_reads_release_their_connections(blocking):
    async def life():
        for _ in range(3):
            # Half of them wait for a connection.
            waiting = [asyncio.create_task(blocking.run(blocking.BLOCK)) for _ in range(2 * LOOP_READERS)]
            await asyncio.sleep(0.1)
            for task in waiting:
                task.cancel()
            assert all(isinstance(result, asyncio.CancelledError) for result in await _results(waiting))
        return await asyncio.gather(*[blocking.run("SELECT 2") for _ in range(LOOP_READERS)])

    assert [answer for _, answer in in_a_loop(life())] == [2] * LOOP_READERS


def _results(tasks):
    return asyncio.gather(*tasks, return_exceptions=True)


def test_a_connection_is_kept_after_a_notification_and_replaced_once_closed(registry_database, vault_store):
    with (
        closing(RegistryStore(registry_database, vault=vault_store)) as store,
        create_engine(registry_database, isolation_level="AUTOCOMMIT").connect() as other,
    ):

        def backend_pid(statement="SELECT 1"):
            with store.database.read_latest() as connection:
                connection.execute(text(statement))
                return connection.scalar(text("SELECT pg_backend_pid()"))

        async def life():
            first = await store.database.run_read(backend_pid, "LISTEN news")
            other.execute(text("NOTIFY news"))
            assert await store.database.run_read(backend_pid) == first
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
            assert await store.database.run_read(backend_pid) != first

        in_a_loop(life())
        first = backend_pid("LISTEN news")
        other.execute(text("NOTIFY news"))
        assert backend_pid() == first
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
        assert backend_pid() != first


def test_can_be_closed_in_a_running_event_loop(registry_database, vault_store):
    async def life():
        store = RegistryStore(registry_database, vault=vault_store)
        assert (await store.database.run_read(store.discover, Query())).items == ()
        store.close()

    in_a_loop(life())


def test_readers_cannot_write(registry_database, vault_store):
    with closing(RegistryStore(registry_database, vault=vault_store)) as store:

        def write():
            for connect in (store.database.read_snapshot, store.database.read_latest):
                with pytest.raises(ServiceUnavailableError, match="read-only transaction"), connect() as connection:
                    connection.execute(text("DELETE FROM knowledge"))
            return True

        assert write()
        assert in_a_loop(store.database.run_read(write))
