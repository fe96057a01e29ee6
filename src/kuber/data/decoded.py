"""A decoded data set in memory, before it is cached."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kuber.domain.digest import Digest

Array = NDArray[np.generic]
NAMES = frozenset({"train_x", "train_y", "test_x", "test_y"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedArrays:
    """Samples, channels first and uint8 or float32, and int64 labels of both parts."""

    train_x: Array
    train_y: NDArray[np.int64]
    test_x: Array
    test_y: NDArray[np.int64]

    def by_name(self) -> dict[str, Array]:
        """Return the four arrays under their names in the cache file."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in sorted(NAMES)}


def digest_of(arrays: dict[str, Array]) -> Digest:
    """Return a digest of names, dtypes, shapes and values, which is the same for every source of the data."""
    chunks: list[bytes | memoryview] = []
    for name in sorted(arrays):
        array = arrays[name]
        chunks.append(f"{name} {array.dtype.str} {array.shape}\n".encode())
        chunks.append(array.data.cast("B"))
    return Digest.of(*chunks)
