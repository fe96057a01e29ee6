"""The recalls of thousands of records, as columns: ranking them takes no Python for each."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST = 128  # places that are sorted before all are
_SHIFT = 31  # a key is (minus the rank) * 2**31 + place


class ColumnRecalls:
    """The `Recalls` of a registry with many entities."""

    def __init__(self) -> None:
        self._columns = np.zeros((0, 64), np.int64)  # a row for each class, a column for each record
        self._places: NDArray[np.int64] = np.full(64, -1, np.int64)  # of each column; -1 where it is free
        self._at: dict[int, int] = {}  # place -> column
        self._free = list(range(63, -1, -1))

    def put(self, place: int, recalls: Sequence[int]) -> None:
        if not self._free:
            width = len(self._places)
            self._columns = np.pad(self._columns, ((0, 0), (0, width)))
            self._places = np.pad(self._places, (0, width), constant_values=-1)
            self._free = list(range(2 * width - 1, width - 1, -1))
        if len(recalls) > len(self._columns):
            self._columns = np.pad(self._columns, ((0, len(recalls) - len(self._columns)), (0, 0)))
        column = self._at[place] = self._free.pop()
        self._places[column] = place
        self._columns[: len(recalls), column] = recalls
        self._columns[len(recalls) :, column] = 0

    def drop(self, place: int) -> None:
        column = self._at.pop(place)
        self._places[column] = -1
        self._free.append(column)

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        known = [label for label in classes if label < len(self._columns)]
        ranks = np.zeros(len(self._places), np.int64)
        for label in known:
            ranks += self._columns[label]
        keys = ((-ranks << _SHIFT) + self._places)[self._places >= 0]
        if after is not None:
            keys = keys[keys > (after[0] << _SHIFT) + after[1]]
        if len(keys) > _FIRST:
            split = np.argpartition(keys, _FIRST)
            yield from _placed(np.sort(keys[split[:_FIRST]]))
            keys = keys[split[_FIRST:]]
        yield from _placed(np.sort(keys))


def _placed(keys: NDArray[np.int64]) -> list[int]:
    places: list[int] = (keys & ((1 << _SHIFT) - 1)).tolist()
    return places
