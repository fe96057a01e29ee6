"""What was lately changed: looked for once for all who wait for it, however many they are."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import takewhile

from fastapi.sse import ServerSentEvent

from kuber.domain.auth import PUBLISH, AuditEntry
from kuber.errors import KUberError
from kuber.wire import AuditBody

POLL_SECONDS = 0.25  # between two looks at what is new
KEPT = 10_000  # events in memory, for those who are not far behind

Read = Callable[[int, int], Awaitable[list[tuple[int, AuditEntry]]]]  # after this number, at most so many
Last = Callable[[], Awaitable[int]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """One event with its number, and as followers are sent it."""

    number: int
    entry: AuditEntry
    event: ServerSentEvent

    def concerns(self, task: str | None) -> bool:
        """Whether it is a publication on this task; without one, always."""
        return task is None or (self.entry.act == PUBLISH and self.entry.detail.get("task") == task)


class EventFeed:
    """The events of a registry for all who follow them. Used from one event loop."""

    def __init__(self, read: Read, last: Last) -> None:
        """`read` reads events from the database, `last` the number of the last one."""
        self._read = read
        self._last = last
        self._kept: deque[Notice] = deque()
        self._from = 0  # what came after this number is kept
        self._until = 0  # the number of the last event that was seen
        self._waiting = 0
        self.ended = False
        self._changed = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    def end(self) -> None:
        """The service stops: who follows is told no more, and who waits waits no longer."""
        self.ended = True
        self._tell()

    async def last(self) -> int:
        """The number of the last event."""
        return self._until if self._watch is not None else await self._last()

    async def after(self, number: int, *, limit: int) -> tuple[list[Notice], int]:
        """What came after this number, first come first, and the number up to which all is told by it.

        Nothing may be told and the number rise: not every event is for all.
        """
        if self._watch is not None and number >= self._from:
            newer = list(takewhile(lambda notice: notice.number > number, reversed(self._kept)))
            found = newer[::-1][:limit]
            return found, found[-1].number if found else number
        before = self._from if self._watch is not None else number  # numbers that were given before we read
        found = [_notice(of, entry) for of, entry in await self._read(number, limit)]
        return found, found[-1].number if found else max(number, before)

    async def follow(self, number: int, *, limit: int) -> AsyncIterator[Notice]:
        """What came after this number and what is yet to come, until the service stops."""
        number = min(number, await self.last())
        while not self.ended:
            found, number = await self.after(number, limit=limit)
            for notice in found:
                yield notice
            await self.wait(number)

    async def wait(self, number: int, seconds: float | None = None) -> None:
        """Return when something came after this number, or so many seconds are over; perhaps earlier."""
        if self.ended:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                last = await self._last() if self._watch is None else self._until
                if self._watch is None:
                    # Not from a number that was never given: a hub from a backup has fewer events than it told.
                    self._from = self._until = min(number, last)
                    self._watch = asyncio.create_task(self._look())
                if self._until <= number:
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    async def _look(self) -> None:
        """Look for what is new, for as long as somebody waits for it."""
        try:
            idle = 0
            while idle < 2:  # who has just been told something comes back at once
                try:
                    found = await self._read(self._until, KEPT)
                except KUberError as error:  # the database is away; the next look may find it
                    log.warning("news are late: %s", error.message)
                    found = []
                if found:
                    self._kept.extend(_notice(number, entry) for number, entry in found)
                    self._until = found[-1][0]
                    while len(self._kept) > KEPT:
                        self._from = self._kept.popleft().number
                    self._tell()
                await asyncio.sleep(POLL_SECONDS)
                idle = 0 if self._waiting else idle + 1
        finally:
            self._watch = None
            self._kept.clear()
            self._tell()  # whoever waits still begins another watch

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _notice(number: int, entry: AuditEntry) -> Notice:
    event = ServerSentEvent(id=str(number), event=entry.act, raw_data=AuditBody.of(entry).model_dump_json())
    return Notice(number, entry, event)
