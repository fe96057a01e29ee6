"""Paces of other entities: when each is expected to publish again, by the times of its last two records."""

from collections.abc import Iterable
from datetime import datetime
from math import inf
from typing import NamedTuple

from kuber.domain.knowledge import Knowledge
from kuber.entity.clock import Clock

LATE = 0.25  # of its usual interval, after which an entity that has not published is expected no longer


class Pace(NamedTuple):
    """The last record of an entity that was seen, and how long it took for a round."""

    round: int
    published_at: datetime
    interval: float | None = None  # seconds for each round; None before a second record was seen


class Paces:
    """Keeps the paces of others, in memory: a new process expects nobody before it has seen two records."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paces: dict[str, Pace] = {}  # by entity id
        self._ahead: float | None = None  # seconds that the hub's clock is ahead of ours; None before a publication

    def published(self, at: datetime) -> None:
        """Take note that a record of our own was published just now, at this time of the hub."""
        self._ahead = at.timestamp() - self._clock.now()

    def saw(self, records: Iterable[Knowledge]) -> None:
        """Take note of the newest records of others."""
        for record in records:
            last = self._paces.get(record.entity)
            if last is None or record.round < last.round:
                self._paces[record.entity] = Pace(record.round, record.published_at)
            elif record.round > last.round:
                seconds = (record.published_at - last.published_at).total_seconds()
                interval = seconds / (record.round - last.round)
                self._paces[record.entity] = Pace(record.round, record.published_at, interval)

    def due(self, records: Iterable[Knowledge]) -> dict[str, float]:
        """Return in how many seconds the entities of these records are expected to publish again, by record id.

        It is 0 for one that is late, infinite for one that is too late, and missing where nothing is known.
        """
        found: dict[str, float] = {}
        for record in records:
            pace = self._paces.get(record.entity)
            if pace is None or pace.interval is None or self._ahead is None:
                continue
            now = self._clock.now() + self._ahead
            left = pace.published_at.timestamp() + pace.interval - now
            found[record.id] = inf if left < -LATE * pace.interval else max(0.0, left)
        return found
