"""The recalls of thousands of records, as columns: ranking them takes no Python for each."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_EACH = 64  # of so many keys one is looked at, to guess which come first
_FIRST = 4  # the guess is the one at this place of those: some 250 keys are sorted before the others are
_SHIFT = 31  # a key is (minus the rank) * 2**31 + place
_FREE = (1 << _SHIFT) - 1  # in place of one, of a column that is free: with a rank of 0 it comes last


class ColumnRecallIndex:
    """The `Recalls` of a registry with many entities."""

    def __init__(self) -> None:
        self._columns = np.zeros((0, 64), np.int64)  # a row for each class, a column for each record
        self._places: NDArray[np.int64] = np.full(64, _FREE, np.int64)  # of each column
        self._at: dict[int, int] = {}  # place -> column
        self._free = list(range(63, -1, -1))

    def put(self, place: int, recalls: Sequence[int]) -> None:
        if not self._free:
            width = len(self._places)
            self._columns = np.pad(self._columns, ((0, 0), (0, width)))
            self._places = np.pad(self._places, (0, width), constant_values=_FREE)
            self._free = list(range(2 * width - 1, width - 1, -1))
        if len(recalls) > len(self._columns):
            self._columns = np.pad(self._columns, ((0, len(recalls) - len(self._columns)), (0, 0)))
        column = self._at[place] = self._free.pop()
        self._places[column] = place
        self._columns[: len(recalls), column] = recalls

    def drop(self, place: int) -> None:
        column = self._at.pop(place)
        self._places[column] = _FREE
        self._columns[:, column] = 0
        self._free.append(column)

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        ranks = np.zeros(len(self._places), np.int64)
        for label in classes:
            if label < len(self._columns):
                ranks += self._columns[label]
        keys = self._places - (ranks << _SHIFT)
        if after is not None:
            keys = keys[keys > (after[0] << _SHIFT) + after[1]]
        if len(keys) > _EACH * _FIRST:
            last = np.sort(keys[::_EACH])[_FIRST]
            yield from _placed(keys[keys <= last])
            keys = keys[keys > last]
        yield from _placed(keys)


def _placed(keys: NDArray[np.int64]) -> list[int]:
    places = np.sort(keys) & _FREE
    told: list[int] = places[places != _FREE].tolist()
    return told
