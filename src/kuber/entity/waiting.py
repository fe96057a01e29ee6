"""Waiting for the next models of others before a merge, for a bounded time."""

from collections.abc import Callable
from typing import Any

from kuber.domain.query import Query
from kuber.domain.strategy import Situation, Strategy
from kuber.entity.clock import Clock
from kuber.entity.hub.discovery import Discovery

LOOKS = 32  # at the registry in the longest time that an entity waits
LONGEST_PAUSE = 60.0  # seconds between two looks


class Waiting:
    """Waits while the strategy expects newer models soon, at most for a share of the round's duration so far."""

    def __init__(self, strategy: Strategy, discovery: Discovery, clock: Clock) -> None:
        self._strategy: Any = strategy  # it may lack `waiting`, and then needs no `waits`
        self._policy = getattr(strategy, "waiting", None)
        self._discovery = discovery
        self._clock = clock
        self._began: float | None = None  # when the round began; None: in an earlier process, so nobody knows

    def begin_round(self) -> None:
        """Take note that a round begins."""
        self._began = self._clock.now()

    def wait(self, query: Query, situation: Callable[[], Situation]) -> float:
        """Return when the registry has what the strategy waits for, or when the time is over; return the seconds."""
        if self._policy is None or self._began is None:
            return 0.0
        longest = self._policy.share * (self._clock.now() - self._began)
        pause, waited = min(longest / LOOKS, LONGEST_PAUSE), 0.0
        while waited < longest:
            newest = self._discovery.newest(query)
            if not self._discovery.is_reachable or not self._strategy.waits(newest, situation()):
                break
            self._clock.sleep(pause)
            waited += pause
        return waited
