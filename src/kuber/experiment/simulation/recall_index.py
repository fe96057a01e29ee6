"""Index of the recalls of thousands of records, as NumPy columns: ranking them runs no Python code per record."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_SAMPLE_STRIDE = 64  # every 64th key is sampled, to estimate which keys come first
_PIVOT = 4  # place of the estimate in the sorted sample: about 250 keys are sorted before the others
_PLACE_BITS = 31  # a key is -rank * 2**31 + place
_EMPTY = (1 << _PLACE_BITS) - 1  # the place of an empty column; with rank 0 its key comes last


class ColumnRecallIndex:
    """The `RecallIndex` of a registry with many entities."""

    def __init__(self) -> None:
        self._columns = np.zeros((0, 64), np.int64)  # a row for each class, a column for each record
        self._places: NDArray[np.int64] = np.full(64, _EMPTY, np.int64)  # of each column
        self._column_of: dict[int, int] = {}  # place -> column
        self._free = list(range(63, -1, -1))  # empty columns

    def put(self, place: int, recalls: Sequence[int]) -> None:
        if not self._free:
            width = len(self._places)
            self._columns = np.pad(self._columns, ((0, 0), (0, width)))
            self._places = np.pad(self._places, (0, width), constant_values=_EMPTY)
            self._free = list(range(2 * width - 1, width - 1, -1))
        if len(recalls) > len(self._columns):
            self._columns = np.pad(self._columns, ((0, len(recalls) - len(self._columns)), (0, 0)))
        column = self._column_of[place] = self._free.pop()
        self._places[column] = place
        self._columns[: len(recalls), column] = recalls

    def drop(self, place: int) -> None:
        column = self._column_of.pop(place)
        self._places[column] = _EMPTY
        self._columns[:, column] = 0
        self._free.append(column)

    def ranked(self, classes: Sequence[int], after: tuple[int, int] | None) -> Iterator[int]:
        ranks = np.zeros(len(self._places), np.int64)
        for label in classes:
            if label < len(self._columns):
                ranks += self._columns[label]
        keys = self._places - (ranks << _PLACE_BITS)
        if after is not None:
            keys = keys[keys > (after[0] << _PLACE_BITS) + after[1]]
        if len(keys) > _SAMPLE_STRIDE * _PIVOT:
            pivot = np.sort(keys[::_SAMPLE_STRIDE])[_PIVOT]
            yield from _sorted_places(keys[keys <= pivot])
            keys = keys[keys > pivot]
        yield from _sorted_places(keys)


def _sorted_places(keys: NDArray[np.int64]) -> list[int]:
    places = np.sort(keys) & _EMPTY
    occupied: list[int] = places[places != _EMPTY].tolist()
    return occupied
