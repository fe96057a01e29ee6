"""A decoded data set in memory, on its way into the cache."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kuber.domain.digest import Digest

Numbers = NDArray[np.generic]
NAMES = frozenset({"train_x", "train_y", "test_x", "test_y"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedArrays:
    """Samples channels first (uint8, or float32) and int64 labels of both parts."""

    train_x: Numbers
    train_y: NDArray[np.int64]
    test_x: Numbers
    test_y: NDArray[np.int64]

    def by_name(self) -> dict[str, Numbers]:
        """The four arrays under the names they have in the cache file."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in sorted(NAMES)}


def digest_of(arrays: dict[str, Numbers]) -> Digest:
    """Of names, dtypes, shapes and values; the same decoded data have it whatever they were decoded from."""
    chunks: list[bytes | memoryview] = []
    for name in sorted(arrays):
        array = arrays[name]
        chunks.append(f"{name} {array.dtype.str} {array.shape}\n".encode())
        chunks.append(array.data.cast("B"))
    return Digest.of(*chunks)
