"""Virtual time: a queue of callbacks, called in the order of their times."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # second 0 of virtual time

Callback = Callable[[], object]


class EventQueue:
    """Callbacks and their times. Among equal times the lowest rank comes first, then the one scheduled first."""

    def __init__(self) -> None:
        self.now = 0.0  # virtual seconds since the epoch
        self._scheduled = 0
        self._queue: list[tuple[float, int, int, Callback]] = []

    @property
    def time(self) -> datetime:
        """The current virtual time as a date."""
        return EPOCH + timedelta(seconds=self.now)

    def schedule(self, when: float, rank: int, callback: Callback) -> None:
        """Have `callback` called at virtual second `when`."""
        heappush(self._queue, (when, rank, self._scheduled, callback))
        self._scheduled += 1

    def run(self) -> None:
        """Call the callbacks, and those that they schedule, until none is left."""
        while self._queue:
            self.now, _, _, callback = heappop(self._queue)
            callback()
