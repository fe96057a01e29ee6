"""Virtual time: what is to happen when, done in that order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)  # of virtual time

Act = Callable[[], object]


class EventQueue:
    """Acts and their times. Among equal times the lower rank comes first, then what was planned first."""

    def __init__(self) -> None:
        self.now = 0.0  # virtual seconds since the beginning
        self._planned = 0
        self._queue: list[tuple[float, int, int, Act]] = []

    @property
    def time(self) -> datetime:
        """It is now, as a date."""
        return BEGINNING + timedelta(seconds=self.now)

    def plan(self, when: float, rank: int, act: Act) -> None:
        """Have this done at that virtual second."""
        heappush(self._queue, (when, rank, self._planned, act))
        self._planned += 1

    def run(self) -> None:
        """Do what is planned, and what that plans, until nothing is left."""
        while self._queue:
            self.now, _, _, act = heappop(self._queue)
            act()
