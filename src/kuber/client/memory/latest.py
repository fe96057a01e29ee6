"""Latest record of each subject, sorted in every order of a query."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Knowledge
from kuber.domain.ranking import recalls

Subject = tuple[str, str, Digest]  # entity, task name, test set


class RecallIndex(Protocol):
    """Ranks records, identified by position, by the sum of their recalls on some classes."""

    def put(self, place: int, recalls: Sequence[int]) -> None:
        """Add a record, with its recalls in whole millionths, 0 for classes without samples."""

    def drop(self, place: int) -> None:
        """Remove a record."""

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        """Yield positions sorted by (-rank, position), starting after the given one."""


class SortedRecallIndex:
    """Sorts for each query."""

    def __init__(self) -> None:
        self._recalls: dict[int, Sequence[int]] = {}

    def put(self, place: int, recalls: Sequence[int]) -> None:
        self._recalls[place] = recalls

    def drop(self, place: int) -> None:
        del self._recalls[place]

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        ranks = sorted(
            (-sum(recalls[label] for label in classes if label < len(recalls)), place)
            for place, recalls in self._recalls.items()
        )
        return (place for _, place in ranks[0 if after is None else bisect_right(ranks, after) :])


class LatestRecords:
    """Latest record of each subject, in order of accuracy, of publication and of recalls."""

    def __init__(self, recalls: Callable[[], RecallIndex]) -> None:
        self.recalls = recalls()
        self._places: dict[Subject, int] = {}
        self._ordered: list[int] = []
        self._best: list[tuple[float, int]] = []  # (-accuracy, place)
        self._keys: dict[int, tuple[float, int]] = {}  # place -> its entry in _best

    def set(self, subject: Subject, place: int, record: Knowledge) -> None:
        """Make this record the latest of its subject."""
        self.clear(subject)
        trusted = record.trusted
        self._places[subject] = place
        insort(self._ordered, place)
        self._keys[place] = key = (-trusted.accuracy, place)
        insort(self._best, key)
        self.recalls.put(place, recalls(trusted))

    def clear(self, subject: Subject) -> None:
        """Remove the latest record of the subject, if any."""
        place = self._places.pop(subject, None)
        if place is not None:
            del self._ordered[bisect_left(self._ordered, place)]
            del self._best[bisect_left(self._best, self._keys.pop(place))]
            self.recalls.drop(place)

    def newest(self, before: int | None) -> Iterator[int]:
        """Yield positions, latest first, starting before the given one."""
        end = len(self._ordered) if before is None else bisect_left(self._ordered, before)
        return (self._ordered[at] for at in range(end - 1, -1, -1))

    def oldest(self, after: int | None) -> Iterator[int]:
        """Yield positions, earliest first, starting after the given one."""
        start = 0 if after is None else bisect_right(self._ordered, after)
        return (self._ordered[at] for at in range(start, len(self._ordered)))

    def best(self, after: tuple[float, int] | None) -> Iterator[int]:
        """Yield positions sorted by (-accuracy, position), starting after the given one."""
        start = 0 if after is None else bisect_right(self._best, after)
        return (self._best[at][1] for at in range(start, len(self._best)))
