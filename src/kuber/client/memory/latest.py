"""Which record of each subject is the latest, kept in the orders in which it is asked for."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Knowledge
from kuber.domain.ranking import recalls

Subject = tuple[str, str, Digest]  # entity, task name, test set


class RecallIndex(Protocol):
    """Ranks records, named by their places, by the sum of their recalls on some classes."""

    def put(self, place: int, recalls: Sequence[int]) -> None:
        """Take a record in; its recalls in whole millionths, 0 where there are no samples."""
        ...

    def drop(self, place: int) -> None:
        """Leave a record out again."""
        ...

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        """The places by (minus their rank, place), from after that one on."""
        ...


class SortedRecallIndex:
    """Sorts whenever it is asked."""

    def __init__(self) -> None:
        self._recalls: dict[int, Sequence[int]] = {}

    def put(self, place: int, recalls: Sequence[int]) -> None:
        self._recalls[place] = recalls

    def drop(self, place: int) -> None:
        del self._recalls[place]

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        told = sorted(
            (-sum(recalls[label] for label in classes if label < len(recalls)), place)
            for place, recalls in self._recalls.items()
        )
        return (place for _, place in told[0 if after is None else bisect_right(told, after) :])


class LatestRecords:
    """The latest record of each subject."""

    def __init__(self, recalls: Callable[[], RecallIndex]) -> None:
        self.recalls = recalls()
        self._places: dict[Subject, int] = {}
        self._ordered: list[int] = []
        self._best: list[tuple[float, int]] = []  # (-accuracy, place)
        self._keys: dict[int, tuple[float, int]] = {}  # place -> its entry there

    def set(self, subject: Subject, place: int, record: Knowledge) -> None:
        """Let this record be the latest of its subject."""
        self.clear(subject)
        trusted = record.trusted
        self._places[subject] = place
        insort(self._ordered, place)
        self._keys[place] = key = (-trusted.accuracy, place)
        insort(self._best, key)
        self.recalls.put(place, recalls(trusted))

    def clear(self, subject: Subject) -> None:
        """Let the subject have none."""
        place = self._places.pop(subject, None)
        if place is not None:
            del self._ordered[bisect_left(self._ordered, place)]
            del self._best[bisect_left(self._best, self._keys.pop(place))]
            self.recalls.drop(place)

    def newest(self, before: int | None) -> Iterator[int]:
        """The places, last first, from before that one on."""
        end = len(self._ordered) if before is None else bisect_left(self._ordered, before)
        return (self._ordered[at] for at in range(end - 1, -1, -1))

    def oldest(self, after: int | None) -> Iterator[int]:
        """The places, first first, from after that one on."""
        start = 0 if after is None else bisect_right(self._ordered, after)
        return (self._ordered[at] for at in range(start, len(self._ordered)))

    def best(self, after: tuple[float, int] | None) -> Iterator[int]:
        """The places by (minus their accuracy, place), from after that one on."""
        start = 0 if after is None else bisect_right(self._best, after)
        return (self._best[at][1] for at in range(start, len(self._best)))
