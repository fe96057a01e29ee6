"""Searches for teachers that find none: how many in a row, and why."""

from collections.abc import Callable

from kuber.domain.strategy import Method
from kuber.entity.hub.alerts import Alerts
from kuber.entity.state.journal import Journal

SEARCHES = 3  # in a row without teachers, after which the owner is warned

_CAUSE = "no teachers"


class TeacherSearch:
    """Counts searches in a row without a teacher.

    There is at most one of each method for a round; that for the next one comes before it, and a restart repeats one.
    """

    def __init__(self, journal: Journal, alerts: Alerts) -> None:
        self._journal = journal
        self._alerts = alerts
        self.begin()

    def begin(self) -> None:
        """Begin a search."""
        self.candidates = 0  # records that match
        self.rejected = 0  # further ones, rejected before
        self.absent = 0  # and further ones, of publishers that are left out for some rounds
        self.rejections: list[str] = []  # reasons of those rejected in this search

    def found(self, candidates: int, *, rejected: int, absent: int) -> None:
        """Take note of how many records match, and how many more would but are left out, by cause."""
        self.candidates, self.rejected, self.absent = candidates, rejected, absent

    def used(self) -> None:
        """Take note that teachers are used."""
        self._journal.change(fruitless={})
        self._alerts.end(_CAUSE)

    def ended_without_teachers(self, method: Method, why: Callable[[], str]) -> None:
        """Count a search that found none; after some in a row, warn once why."""
        counts = self._journal.state.fruitless
        count = counts.get(method.value, 0) + 1
        self._journal.change(fruitless={**counts, method.value: count})
        if count < SEARCHES or self._alerts.is_known(_CAUSE):
            return
        reason = f"{why()}."
        if count == SEARCHES and all(earlier < SEARCHES for earlier in counts.values()):
            self._journal.append("no-teachers", {"rounds": count, "reason": reason})
        self._alerts.warn(f"No teachers in {count} searches in a row: {reason}", cause=_CAUSE)
