"""Where weights lie while nobody computes with them: in a file without a name, which processes map.

Its pages are the kernel's cache of a file in the temporary folder, which can be evicted; anonymous memory cannot. The
file has no name, so nothing is left of it when the last process that has it open ends, however it ends.
"""

import mmap
import os
import tempfile
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kuber.errors import TrainingError
from kuber.learning.runtime import release_freed_memory
from kuber.learning.weights import Weights

Bytes = NDArray[np.uint8]

ALIGNMENT = 64  # of each tensor: a line of the processor's cache
EXTENT = 1 << 30  # mapped at a time; addresses cost nothing
RELEASE_AFTER_BYTES = 64 << 20  # so many bytes are looked at before our pages are given back to the cache
_MOST_PARTS = 512  # of one write; systems allow 1,024


class Block(NamedTuple):
    """A piece of an arena."""

    offset: int
    size: int


class MappedMemory:
    """A file in blocks. This side only reads and maps it; a `MappedMemoryWriter` hands out blocks too."""

    def __init__(self, descriptor: int, free: Callable[[Block], None]) -> None:
        """`free` hears of every block whose view is gone, in whatever thread that happens; the descriptor is ours."""
        self.descriptor = descriptor
        self._free = free
        self._extents: dict[int, mmap.mmap] = {}
        self._read_bytes = 0
        self._lock = Lock()
        weakref.finalize(self, os.close, descriptor)

    def view(self, block: Block) -> Bytes:
        """The bytes of a block, mapped; it is free when nothing refers to this array any more."""
        number, within = divmod(block.offset, EXTENT)
        if within + block.size > EXTENT:
            whole = mmap.mmap(self.descriptor, block.size, offset=block.offset)
            array = np.frombuffer(whole, np.uint8)
        else:
            array = np.frombuffer(self._extent(number), np.uint8, block.size, within)
        weakref.finalize(array, self._free, block).atexit = False
        return array

    def read(self, block: Block, length: int) -> bytes:
        """The first bytes of a block, copied."""
        return os.pread(self.descriptor, min(length, block.size), block.offset)

    def _extent(self, number: int) -> mmap.mmap:
        with self._lock:
            if number not in self._extents:
                found = mmap.mmap(self.descriptor, EXTENT, offset=number * EXTENT)
                self._extents[number] = found
                _Extents.add(np.frombuffer(found, np.uint8, 1).ctypes.data, self, number)
            return self._extents[number]

    def note_read(self, size: int) -> None:
        """Say that so many mapped bytes were read: now and then their pages leave this process, not the cache."""
        with self._lock:
            self._read_bytes += size
            if self._read_bytes < RELEASE_AFTER_BYTES or not hasattr(mmap, "MADV_DONTNEED"):
                return
            self._read_bytes = 0
            for extent in self._extents.values():
                extent.madvise(mmap.MADV_DONTNEED)
        # Copies of weights, too, leave holes between what stays: a thousand models' worth of them, if left alone.
        release_freed_memory()


class MappedMemoryWriter(MappedMemory):
    """An arena whose blocks are handed out here."""

    def __init__(self) -> None:
        self.folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=self.folder) as file:
            descriptor = os.dup(file.fileno())
        self._freed: deque[Block] = deque()  # a view can end while we hold the lock: it only appends
        super().__init__(descriptor, self._freed.append)
        self._spare: dict[int, list[int]] = {}  # room -> offsets
        self._end = 0
        self._length = 0

    def write(self, parts: Sequence[memoryview]) -> tuple[Block, list[Block]]:
        """Write these bytes to a block of their own; that, and where in it each part lies.

        TrainingError when there is no space left.
        """
        places, size = [], 0
        for part in parts:
            places.append((size, part.nbytes))
            size += -(-part.nbytes // ALIGNMENT) * ALIGNMENT
        block = self._block(max(size, ALIGNMENT))
        try:
            self._put(parts, block)
        except OSError as error:
            self.free(block)
            raise TrainingError(
                f"Weights that wait cannot be written to {self.folder}: {error.strerror}; make room there, or name "
                "another folder with TMPDIR."
            ) from None
        return block, [Block(block.offset + start, length) for start, length in places]

    def free(self, block: Block) -> None:
        """Let the block be handed out again."""
        self._freed.append(block)

    def keep(self, weights: Weights) -> Weights:
        """The same weights, in mapped memory."""
        arrays = {name: as_bytes(tensor) for name, tensor in weights.items()}
        if all(find_block(array) is not None for array in arrays.values()):
            return weights
        block, places = self.write([array.data for array in arrays.values()])
        view = self.view(block)
        return {
            name: as_tensor(view[place.offset - block.offset :][: place.size], tensor.dtype, tuple(tensor.shape))
            for (name, tensor), place in zip(weights.items(), places, strict=True)
        }

    @property
    def size(self) -> int:
        """Bytes of the file that were ever used."""
        return self._end

    def _block(self, size: int) -> Block:
        room = _room(size)
        with self._lock:
            while self._freed:
                free = self._freed.popleft()
                self._spare.setdefault(_room(free.size), []).append(free.offset)
            if self._spare.get(room):
                return Block(self._spare[room].pop(), size)
            start = self._end
            if start % EXTENT + room > EXTENT:  # not across a border
                start = -(-start // EXTENT) * EXTENT
            self._end = start + room
            if self._end > self._length:
                self._length = -(-self._end // EXTENT) * EXTENT
                os.ftruncate(self.descriptor, self._length)  # takes no space before it is written to
            return Block(start, size)

    def _put(self, parts: Sequence[memoryview], block: Block) -> None:
        pieces: list[memoryview | bytes] = []
        for part in parts:
            pieces.append(part)
            if part.nbytes % ALIGNMENT:
                pieces.append(bytes(-part.nbytes % ALIGNMENT))
        offset = block.offset
        for first in range(0, len(pieces), _MOST_PARTS):
            left = [memoryview(piece) for piece in pieces[first : first + _MOST_PARTS]]
            while left:
                done = os.pwritev(self.descriptor, left, offset)
                offset += done
                while left and done >= left[0].nbytes:
                    done -= left.pop(0).nbytes
                if done:
                    left[0] = left[0][done:]


class _Extents:
    """Which mapped memory of this process is of which arena."""

    _bases: tuple[int, ...] = ()
    _arenas: tuple[tuple["weakref.ref[MappedMemory]", int], ...] = ()
    _lock = Lock()

    @classmethod
    def add(cls, base: int, memory: MappedMemory, number: int) -> None:
        with cls._lock:
            known = [
                (at, whose)
                for at, whose in zip(cls._bases, cls._arenas, strict=True)
                if whose[0]() is not None and at != base
            ]
            known = sorted([*known, (base, (weakref.ref(memory), number))], key=lambda one: one[0])
            cls._bases, cls._arenas = tuple(at for at, _ in known), tuple(whose for _, whose in known)

    @classmethod
    def find(cls, address: int) -> tuple[MappedMemory, int] | None:
        with cls._lock:
            at = bisect_right(cls._bases, address) - 1
            if at < 0 or address - cls._bases[at] >= EXTENT:
                return None
            found, number = cls._arenas[at]
            memory = found()
            return None if memory is None else (memory, number * EXTENT + address - cls._bases[at])


def find_block(array: Bytes) -> tuple[MappedMemory, Block] | None:
    """Where these bytes lie, if that is in an arena."""
    found = _Extents.find(array.ctypes.data)
    return None if found is None else (found[0], Block(found[1], array.nbytes))


def as_bytes(tensor: Tensor) -> Bytes:
    """The bytes of a tensor on the CPU; not copied where they lie in order."""
    flat = tensor.detach().contiguous().reshape(-1)
    array: Bytes = flat.view(torch.uint8).numpy()
    return array


def as_tensor(array: Bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor whose bytes these are; it shares their memory where that can be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).view(dtype).reshape(shape)


def _room(size: int) -> int:
    """What is set aside for so many bytes: few sizes, so that a freed block suits the next."""
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
