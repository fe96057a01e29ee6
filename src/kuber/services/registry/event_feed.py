"""Feed of a registry's events: one database poll serves every waiting client."""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import accumulate, takewhile

from fastapi.sse import ServerSentEvent

from kuber.domain.auth import PUBLISH, AuditEntry
from kuber.errors import KUberError
from kuber.services.registry.audit import BATCH, BATCH_BYTES
from kuber.wire.registry import AuditBody

POLL_SECONDS = 0.25  # between two polls
RECENT = 10_000  # events kept in memory, for clients that are not far behind
RECENT_BYTES = 32 << 20  # and at most so many bytes of them
_NOTICE_BYTES = 1500  # of a notice without its text, about

Read = Callable[[int, int], Awaitable[list[tuple[int, AuditEntry]]]]  # (after this number, at most so many)
ReadLast = Callable[[], Awaitable[int]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """An event with its number, and as it is sent to followers; with its entry if it is a publication."""

    number: int
    publication: AuditEntry | None
    event: ServerSentEvent
    size: int  # bytes in memory, about

    @classmethod
    def of(cls, number: int, entry: AuditEntry) -> "Notice":
        """Return the notice of an audit entry."""
        text = AuditBody.of(entry).model_dump_json()
        event = ServerSentEvent(id=str(number), event=entry.act, raw_data=text)
        published = entry.act == PUBLISH
        size = _NOTICE_BYTES + sys.getsizeof(text) * (3 if published else 1)
        return cls(number, entry if published else None, event, size)


class EventFeed:
    """The events of a registry for all clients that follow them. Used from one event loop.

    While a client waits, a task polls the database and keeps the recent events in memory. What they hold is up to
    POLL_SECONDS old.
    """

    def __init__(self, read: Read, read_last: ReadLast) -> None:
        """`read` reads events from the database, `read_last` the number of the last one."""
        self._read = read
        self._read_last = read_last
        self._recent: deque[Notice] = deque()
        self._size = 0  # bytes of them
        self._start = 0  # every later event up to `_end` is in `_recent`
        self._end = 0  # number of the last event that a poll found
        self._waiting = 0
        self.stopped = False
        self._changed = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Wake all waiters and end all followers: the service is stopping."""
        self.stopped = True
        self._wake()

    async def clamp(self, number: int | None) -> int:
        """Return the number; that of the last event for None, and for numbers that no event has yet."""
        if number is None:
            return await self._read_last()
        if self._polling is not None and number <= self._end:
            return number
        return min(number, await self._read_last())

    async def after(self, number: int, *, limit: int) -> tuple[list[Notice], int]:
        """Return the events after this number, oldest first, and the number to continue from.

        That number may rise without events: some are not public.
        """
        if self._polling is not None and number >= self._start:
            newer = list(takewhile(lambda notice: notice.number > number, reversed(self._recent)))
            found = _first(newer[::-1][:limit])
            return found, found[-1].number if found else number
        # Every event up to this number existed before this read.
        known = self._start if self._polling is not None else number
        found = [Notice.of(of, entry) for of, entry in await self._read(number, limit)]
        return found, found[-1].number if found else max(number, known)

    async def follow(self, number: int, *, limit: int) -> AsyncIterator[Notice]:
        """Yield the events after this number, and later ones as they come, until the service stops."""
        number = await self.clamp(number)
        while not self.stopped:
            found, number = await self.after(number, limit=limit)
            for notice in found:
                yield notice
            await self.wait(number)

    async def wait(self, number: int, seconds: float | None = None) -> None:
        """Wait for an event after this number, at most `seconds`; may return early."""
        if self.stopped:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                if self._polling is None:
                    last = await self._read_last()
                    # Another waiter may have begun meanwhile.
                    if self._polling is None:
                        # No further than the last event: a hub restored from a backup has fewer than its clients saw.
                        self._start = self._end = min(number, last)
                        self._polling = asyncio.create_task(self._poll())
                if self._end <= number:
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    async def _poll(self) -> None:
        """Read new events for as long as a client waits for them."""
        try:
            idle = 0
            while idle < 2:  # a client that has just been answered comes back at once
                try:
                    found = [Notice.of(number, entry) for number, entry in await self._read(self._end, BATCH)]
                except KUberError as error:  # the database is unreachable; the next poll may succeed
                    log.warning("events are delayed: %s", error.message)
                    found = []
                if found:
                    self._keep(found)
                    self._wake()
                more = len(found) == BATCH or sum(notice.size for notice in found) > BATCH_BYTES // 2
                await asyncio.sleep(0 if more else POLL_SECONDS)
                idle = 0 if self._waiting or more else idle + 1
        finally:
            self._polling = None
            self._recent.clear()
            self._size = 0
            self._wake()  # those that still wait begin to poll again

    def _keep(self, found: list[Notice]) -> None:
        """Keep new events in memory, and drop the oldest of too many or too long ones."""
        self._recent.extend(found)
        self._size += sum(notice.size for notice in found)
        self._end = found[-1].number
        while len(self._recent) > RECENT or self._size > RECENT_BYTES:
            dropped = self._recent.popleft()
            self._start, self._size = dropped.number, self._size - dropped.size

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _first(notices: list[Notice]) -> list[Notice]:
    """Return the first notices, up to BATCH_BYTES of them, at least one."""
    sizes = accumulate(notice.size for notice in notices)
    count = sum(1 for _ in takewhile(lambda size: size <= BATCH_BYTES, sizes))
    return notices[: max(1, count)]
