"""Threads for one kind of work: the bounds, the shares of a caller, and what happens to those that wait."""

import asyncio
import threading

import pytest

from kuber.errors import ServiceUnavailableError
from kuber.services.http.bulkhead import RETRY_SECONDS, Bulkhead
from tests.fixtures.coroutines import run_coroutine

BUSY = "The test is busy"


class Stalled:
    """Calls that end when they are released."""

    def __init__(self):
        self._released = threading.Event()

    def __call__(self):
        assert self._released.wait(30)
        return "done"

    def release(self):
        self._released.set()


async def begun(bulkhead, call, count, *, by=None):
    """Begin so many calls, and return when each of them runs or waits."""
    tasks = [asyncio.create_task(bulkhead.run(call, by=by)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_calls_beyond_threads_and_queue_are_refused_at_once():
    async def scenario():
        bulkhead, call = Bulkhead(BUSY, threads=2, queue=1, seconds=30), Stalled()
        tasks = await begun(bulkhead, call, 3)
        assert (bulkhead.running, bulkhead.waiting) == (2, 1)
        with pytest.raises(ServiceUnavailableError, match=r"The test is busy; try again in 2 s\.") as caught:
            await bulkhead.run(call)
        assert caught.value.retry_after == RETRY_SECONDS
        call.release()
        assert await asyncio.gather(*tasks) == ["done"] * 3
        assert (bulkhead.running, bulkhead.waiting, bulkhead.refused) == (0, 0, 1)

    run_coroutine(scenario())


def test_a_call_that_has_waited_long_is_refused_and_leaves_the_queue():
    async def scenario():
        bulkhead, call = Bulkhead(BUSY, threads=1, queue=5, seconds=0.01), Stalled()
        tasks = await begun(bulkhead, call, 1)
        with pytest.raises(ServiceUnavailableError):
            await bulkhead.run(call)
        assert bulkhead.waiting == 0
        call.release()
        await asyncio.gather(*tasks)
        assert await bulkhead.run(call) == "done"

    run_coroutine(scenario())


def test_one_caller_has_half_of_the_threads_and_of_the_queue():
    async def scenario():
        bulkhead, call = Bulkhead(BUSY, threads=4, queue=4, seconds=30), Stalled()
        greedy = await begun(bulkhead, call, 4, by="greedy")
        assert (bulkhead.running, bulkhead.waiting) == (2, 2)
        with pytest.raises(ServiceUnavailableError):
            await bulkhead.run(call, by="greedy")
        assert await bulkhead.run(lambda: "served", by="other") == "served"
        assert (bulkhead.running, bulkhead.waiting) == (2, 2)  # the freed thread is not for the greedy one
        call.release()
        await asyncio.gather(*greedy)

    run_coroutine(scenario())


def test_whoever_gives_up_holds_neither_a_place_nor_a_thread():
    async def scenario():
        bulkhead, call = Bulkhead(BUSY, threads=1, queue=2, seconds=30), Stalled()
        runs, gives_up, waits = await begun(bulkhead, call, 3)
        gives_up.cancel()
        call.release()
        assert await asyncio.gather(runs, waits) == ["done", "done"]
        assert (bulkhead.running, bulkhead.waiting) == (0, 0)
        assert gives_up.cancelled()

    run_coroutine(scenario())


def test_the_error_of_a_call_frees_its_thread():
    async def scenario():
        bulkhead = Bulkhead(BUSY, threads=1, queue=0, seconds=30)
        with pytest.raises(ZeroDivisionError):
            await bulkhead.run(lambda: 1 / 0)
        assert await bulkhead.run(lambda: 1) == 1

    run_coroutine(scenario())
