"""Bulkheads: threads for one kind of work each, so that work that stalls holds no thread of another kind."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from kuber.errors import ServiceUnavailableError

RETRY_SECONDS = 2.0  # after which a refused caller may try again

T = TypeVar("T")


class Bulkhead:
    """Threads for one kind of work, and a bounded queue for them. Used from one event loop.

    At most `threads` calls run, of them at most half for one caller. At most `queue` calls wait, of them at most half
    for one caller, each for `seconds`. Other calls are refused at once: ServiceUnavailableError.
    """

    def __init__(self, busy: str, *, threads: int, queue: int, seconds: float) -> None:
        """`busy` is the sentence for refused callers, without what to do."""
        self._busy = busy
        self._threads = threads
        self._queue = queue
        self._seconds = seconds
        self._running: Counter[str | None] = Counter()  # calls by caller
        self._waiting: deque[tuple[str | None, asyncio.Future[None]]] = deque()
        self.refused = 0  # calls, since the start

    @property
    def running(self) -> int:
        """Number of calls that run."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a thread."""
        return len(self._waiting)

    async def run(self, call: Callable[[], T], *, by: str | None = None) -> T:
        """Run `call` in a thread. The shares apply to callers with a name, `by`."""
        await self._enter(by)
        try:
            return await to_thread.run_sync(call, limiter=CapacityLimiter(1))  # the number of threads is bounded here
        finally:
            self._leave(by)

    async def _enter(self, by: str | None) -> None:
        if self._may_run(by):
            self._running[by] += 1
            return
        mine = sum(caller == by for caller, _ in self._waiting) if by is not None else 0
        if len(self._waiting) >= self._queue or mine >= max(1, self._queue // 2):
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = by, turn
        self._waiting.append(entry)
        try:
            await asyncio.wait({turn}, timeout=self._seconds)
        except asyncio.CancelledError:
            if turn.done():
                self._leave(by)
            else:
                self._waiting.remove(entry)
            raise
        if not turn.done():
            self._waiting.remove(entry)
            raise self._refusal()

    def _may_run(self, by: str | None) -> bool:
        share = self._threads if by is None else max(1, self._threads // 2)
        return self._running.total() < self._threads and self._running[by] < share

    def _leave(self, by: str | None) -> None:
        self._running[by] -= 1
        if not self._running[by]:
            del self._running[by]
        for entry in self._waiting:
            caller, turn = entry
            if self._may_run(caller):
                self._waiting.remove(entry)
                self._running[caller] += 1
                turn.set_result(None)
                return

    def _refusal(self) -> ServiceUnavailableError:
        self.refused += 1
        return ServiceUnavailableError(
            f"{self._busy}; try again in {RETRY_SECONDS:.0f} s.", retry_after=RETRY_SECONDS
        )
