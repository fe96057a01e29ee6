"""Waiting for the next models of others before a merge, for a bounded time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from kuber.domain.knowledge import Knowledge
from kuber.domain.query import Query
from kuber.domain.strategy import Method, Situation, Strategy, Wait
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
        round = self._clock.now() - self._began
        longest = self._policy.share * round
        pause, waited = min(longest / LOOKS, LONGEST_PAUSE), 0.0
        seen, came = 0, 0.0  # models, and the seconds after which the last one came
        while waited < longest:
            newest = self._discovery.newest(query)
            if len(newest) > seen:
                seen, came = len(newest), waited
            wait = Wait(round=round, left=longest - waited, quiet=waited - came, due=self._due(newest))
            if not self._discovery.is_reachable or not self._strategy.waits(newest, replace(situation(), wait=wait)):
                break
            self._clock.sleep(pause)
            waited += pause
        return waited

    def _due(self, newest: Sequence[Knowledge]) -> dict[str, float]:
        """Return in how many seconds something newer than each of these records is expected, by id, if known.

        Nobody waits for more of an entity of which there is a record that was not merged yet.
        """
        merged = [record for record in newest if self._discovery.is_tested(record, Method.MERGE)]
        unmerged = {record.id: inf for record in newest if record not in merged}
        return unmerged | self._discovery.paces.due(merged)
