"""Samples: selected rows of a file that every process maps and none copies."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from kuber.domain.digest import Digest
from kuber.domain.safetensors_header import PREFIX_LENGTH, header_length, read_manifest

Rows = NDArray[np.int64]
_CHUNK = 4096  # rows hashed at a time
# By device, inode, time and size. A map keeps its file open, and a process may hold samples of a thousand entities.
_maps: "WeakValueDictionary[tuple[int, ...], np.memmap[Any, np.dtype[np.uint8]]]" = WeakValueDictionary()
_DTYPES = {"U8": np.uint8, "F32": np.float32, "I64": np.int64}


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples in a safetensors file, under the names `<part>_x` and `<part>_y`.

    Pickled as the path and the rows, without the samples themselves.
    """

    path: Path
    part: str  # "train" or "test"
    rows: Rows | None = None  # of the part; None for all of them
    label_map: tuple[int, ...] | None = None  # class -> class it is labelled as; None: all as they are

    @cached_property
    def _all(self) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        tensors = map_tensors(self.path)
        return tensors[f"{self.part}_x"], np.asarray(tensors[f"{self.part}_y"])

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "part": self.part, "rows": self.rows, "label_map": self.label_map}

    def __len__(self) -> int:
        return len(self._all[1]) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, channels first."""
        return tuple(self._all[0].shape[1:])

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class of each sample, shape (len,)."""
        labels = self._all[1]
        chosen = labels if self.rows is None else labels[self.rows]
        return chosen if self.label_map is None else np.asarray(self.label_map)[chosen]

    def images(self, positions: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.generic]:
        """Return the samples at these positions, shape (n, *shape), as stored: uint8 or float32."""
        return np.asarray(self._all[0][positions if self.rows is None else self.rows[positions]])

    def take(self, positions: Sequence[int] | Rows) -> "Samples":
        """Return the samples at these positions, in this order."""
        chosen = np.asarray(positions, dtype=np.int64)
        return replace(self, rows=chosen if self.rows is None else self.rows[chosen])

    def relabelled(self, classes: Sequence[int]) -> "Samples":
        """Return the same samples with class k labelled as `classes[k]`."""
        return replace(self, label_map=tuple(classes))

    def digest(self) -> Digest:
        """Return a digest of shape, dtype, samples and labels in order, which does not depend on the file."""
        images = self._all[0]
        sha = hashlib.sha256(f"{images.dtype.str} {(len(self), *self.shape)}\n".encode())
        for first in range(0, len(self), _CHUNK):
            sha.update(self.images(np.arange(first, min(first + _CHUNK, len(self)))).data)
        sha.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        return Digest(sha.hexdigest())


def map_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of a safetensors file as read-only views of one memory map, shared within the process.

    Raises ValueError when the file is malformed or cut short.
    """
    with path.open("rb") as file:
        length = header_length(file.read(PREFIX_LENGTH))
        header = file.read(length)
        state = os.fstat(file.fileno())
        manifest = read_manifest(header, size=state.st_size)
        key = state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
        memory = _maps.get(key)
        if memory is None:
            memory = _maps[key] = np.memmap(file, mode="r")
    start = PREFIX_LENGTH + length
    entries = json.loads(header)
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, spec in manifest.items():
        if spec.dtype not in _DTYPES:
            raise ValueError(f"tensor {name!r} has dtype {spec.dtype}")
        begin, end = entries[name]["data_offsets"]
        flat = memory[start + begin : start + end].view(_DTYPES[spec.dtype])
        tensors[name] = np.asarray(flat).reshape(spec.shape)
    return tensors
