"""Readers of a PostgreSQL database: threads, and the event loop, which goes on while the server is waited for."""

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
    """In a thread of its own: where a browser was tested before, this one has a loop that runs."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@dataclass
class Halting:
    """A store whose statement HALT waits until somebody lets it go on."""

    HALT = "SELECT 1 FROM pg_advisory_xact_lock(7)"

    store: RegistryStore
    holder: Connection

    def ask(self, statement):
        """What a statement tells, and in which thread it was asked."""

        def look():
            with self.store.database.read_latest() as connection:
                return threading.get_ident(), connection.scalar(text(statement))

        return self.store.database.run_read(look)

    def go_on(self):
        self.holder.execute(text("SELECT pg_advisory_unlock(7)"))


@pytest.fixture
def halting(registry_database, vault_store):
    with (
        closing(RegistryStore(registry_database, vault=vault_store)) as store,
        create_engine(registry_database).connect() as holder,
    ):
        holder.execute(text("SELECT pg_advisory_lock(7)"))
        yield Halting(store, holder)


def test_while_a_server_is_waited_for_the_event_loop_goes_on(halting):
    async def both():
        waiting = asyncio.create_task(halting.ask(halting.HALT))
        quick = await halting.ask("SELECT 2")
        assert not waiting.done()
        halting.go_on()
        return threading.get_ident(), await waiting, quick

    here, *answers = in_a_loop(both())
    assert answers == [(here, 1), (here, 2)]


def test_questions_that_are_given_up_leave_their_connections_to_others(halting):
    async def life():
        for _ in range(3):
            # Half of them have no connection yet.
            waiting = [asyncio.create_task(halting.ask(halting.HALT)) for _ in range(2 * LOOP_READERS)]
            await asyncio.sleep(0.1)
            for task in waiting:
                task.cancel()
            assert all(isinstance(one, asyncio.CancelledError) for one in await _ends(waiting))
        return await asyncio.gather(*[halting.ask("SELECT 2") for _ in range(LOOP_READERS)])

    assert [answer for _, answer in in_a_loop(life())] == [2] * LOOP_READERS


def _ends(tasks):
    return asyncio.gather(*tasks, return_exceptions=True)


def test_a_connection_is_kept_through_news_and_replaced_after_its_end(registry_database, vault_store):
    with (
        closing(RegistryStore(registry_database, vault=vault_store)) as store,
        create_engine(registry_database, isolation_level="AUTOCOMMIT").connect() as other,
    ):

        def number(statement="SELECT 1"):
            with store.database.read_latest() as connection:
                connection.execute(text(statement))
                return connection.scalar(text("SELECT pg_backend_pid()"))

        async def life():
            first = await store.database.run_read(number, "LISTEN news")
            other.execute(text("NOTIFY news"))
            assert await store.database.run_read(number) == first
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
            assert await store.database.run_read(number) != first

        in_a_loop(life())
        first = number("LISTEN news")
        other.execute(text("NOTIFY news"))
        assert number() == first
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
        assert number() != first


def test_is_closed_also_where_an_event_loop_runs(registry_database, vault_store):
    async def life():
        store = RegistryStore(registry_database, vault=vault_store)
        assert (await store.database.run_read(store.discover, Query())).items == ()
        store.close()

    in_a_loop(life())


def test_readers_of_both_kinds_cannot_write(registry_database, vault_store):
    with closing(RegistryStore(registry_database, vault=vault_store)) as store:

        def write():
            for begin in (store.database.read_snapshot, store.database.read_latest):
                with pytest.raises(ServiceUnavailableError, match="read-only transaction"), begin() as connection:
                    connection.execute(text("DELETE FROM knowledge"))
            return True

        assert write()
        assert in_a_loop(store.database.run_read(write))
