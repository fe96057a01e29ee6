"""Memory for idle weights and for tensors that processes exchange: blocks of an unnamed file that processes map.

Its pages are the kernel's cache of a file in the temporary folder, which can be evicted; anonymous memory cannot. The
file has no name, so it vanishes when the last process that has it open ends, however it ends.
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

ALIGNMENT = 64  # bytes, of each tensor: a cache line
EXTENT = 1 << 30  # bytes mapped at a time; address space is free
RELEASE_AFTER_BYTES = 64 << 20  # mapped bytes read before the process releases their pages
_MAX_BUFFERS = 512  # of one write; systems allow 1,024


class Block(NamedTuple):
    """A stretch of the file."""

    offset: int
    size: int


class MappedMemory:
    """A file that this process reads and maps, block by block; a `MappedMemoryWriter` also allocates blocks."""

    def __init__(self, descriptor: int, free: Callable[[Block], None]) -> None:
        """Take ownership of the descriptor. `free` is called, from any thread, with each block whose view is gone."""
        self.descriptor = descriptor
        self._free = free
        self._extents: dict[int, mmap.mmap] = {}
        self._read_bytes = 0
        self._lock = Lock()
        weakref.finalize(self, os.close, descriptor)

    def view(self, block: Block) -> Bytes:
        """Map a block. It is freed when nothing refers to the returned array any more."""
        number, within = divmod(block.offset, EXTENT)
        if within + block.size > EXTENT:
            whole = mmap.mmap(self.descriptor, block.size, offset=block.offset)
            array = np.frombuffer(whole, np.uint8)
        else:
            array = np.frombuffer(self._extent(number), np.uint8, block.size, within)
        weakref.finalize(array, self._free, block).atexit = False
        return array

    def read(self, block: Block, length: int) -> bytes:
        """Return a copy of the first `length` bytes of a block."""
        return os.pread(self.descriptor, min(length, block.size), block.offset)

    def _extent(self, number: int) -> mmap.mmap:
        with self._lock:
            if number not in self._extents:
                found = mmap.mmap(self.descriptor, EXTENT, offset=number * EXTENT)
                self._extents[number] = found
                _Extents.add(np.frombuffer(found, np.uint8, 1).ctypes.data, self, number)
            return self._extents[number]

    def note_read(self, size: int) -> None:
        """Count mapped bytes that were read; every RELEASE_AFTER_BYTES, release the pages to the kernel's cache."""
        with self._lock:
            self._read_bytes += size
            if self._read_bytes < RELEASE_AFTER_BYTES or not hasattr(mmap, "MADV_DONTNEED"):
                return
            self._read_bytes = 0
            for extent in self._extents.values():
                extent.madvise(mmap.MADV_DONTNEED)
        # Freed copies of weights fragment the heap, which would otherwise grow by the size of a thousand models.
        release_freed_memory()


class MappedMemoryWriter(MappedMemory):
    """A new file whose blocks this process allocates."""

    def __init__(self) -> None:
        self.folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=self.folder) as file:
            descriptor = os.dup(file.fileno())
        self._freed: deque[Block] = deque()  # a view may be collected while we hold the lock, so this only appends
        super().__init__(descriptor, self._freed.append)
        self._spare: dict[int, list[int]] = {}  # rounded size -> offsets
        self._end = 0
        self._length = 0

    def write(self, parts: Sequence[memoryview]) -> tuple[Block, list[Block]]:
        """Write the parts to a new block. Return it, and the block of each part within it.

        Raises TrainingError if no space is left.
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
                f"Weights cannot be written to {self.folder}: {error.strerror}; free space there, or set TMPDIR to "
                "another folder."
            ) from None
        return block, [Block(block.offset + start, length) for start, length in places]

    def free(self, block: Block) -> None:
        """Make a block available again."""
        self._freed.append(block)

    def keep(self, weights: Weights) -> Weights:
        """Return the weights in mapped memory; the same object if they are there already."""
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
        """Size of the used part of the file, in bytes."""
        return self._end

    def _block(self, size: int) -> Block:
        rounded = _rounded(size)
        with self._lock:
            while self._freed:
                free = self._freed.popleft()
                self._spare.setdefault(_rounded(free.size), []).append(free.offset)
            if self._spare.get(rounded):
                return Block(self._spare[rounded].pop(), size)
            start = self._end
            if start % EXTENT + rounded > EXTENT:  # a block lies in one extent
                start = -(-start // EXTENT) * EXTENT
            self._end = start + rounded
            if self._end > self._length:
                self._length = -(-self._end // EXTENT) * EXTENT
                os.ftruncate(self.descriptor, self._length)  # uses no space until it is written to
            return Block(start, size)

    def _put(self, parts: Sequence[memoryview], block: Block) -> None:
        pieces: list[memoryview | bytes] = []
        for part in parts:
            pieces.append(part)
            if part.nbytes % ALIGNMENT:
                pieces.append(bytes(-part.nbytes % ALIGNMENT))
        offset = block.offset
        for first in range(0, len(pieces), _MAX_BUFFERS):
            left = [memoryview(piece) for piece in pieces[first : first + _MAX_BUFFERS]]
            while left:
                done = os.pwritev(self.descriptor, left, offset)
                offset += done
                while left and done >= left[0].nbytes:
                    done -= left.pop(0).nbytes
                if done:
                    left[0] = left[0][done:]


class _Extents:
    """The mapped extents of this process, by address."""

    _starts: tuple[int, ...] = ()
    _owners: tuple[tuple["weakref.ref[MappedMemory]", int], ...] = ()  # of each start: the file, and the extent in it
    _lock = Lock()

    @classmethod
    def add(cls, start: int, memory: MappedMemory, number: int) -> None:
        with cls._lock:
            known = [
                (address, owner)
                for address, owner in zip(cls._starts, cls._owners, strict=True)
                if owner[0]() is not None and address != start
            ]
            known = sorted([*known, (start, (weakref.ref(memory), number))], key=lambda item: item[0])
            cls._starts, cls._owners = tuple(address for address, _ in known), tuple(owner for _, owner in known)

    @classmethod
    def find(cls, address: int) -> tuple[MappedMemory, int] | None:
        """Return the file mapped at this address, and the offset in it."""
        with cls._lock:
            index = bisect_right(cls._starts, address) - 1
            if index < 0 or address - cls._starts[index] >= EXTENT:
                return None
            reference, number = cls._owners[index]
            memory = reference()
            return None if memory is None else (memory, number * EXTENT + address - cls._starts[index])


def find_block(array: Bytes) -> tuple[MappedMemory, Block] | None:
    """Return the file and the block that hold these bytes, or None if they are not in mapped memory."""
    found = _Extents.find(array.ctypes.data)
    return None if found is None else (found[0], Block(found[1], array.nbytes))


def as_bytes(tensor: Tensor) -> Bytes:
    """Return the bytes of a tensor on the CPU, without copying a contiguous one."""
    flat = tensor.detach().contiguous().reshape(-1)
    array: Bytes = flat.view(torch.uint8).numpy()
    return array


def as_tensor(array: Bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor that these bytes hold, without copying writable ones."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).view(dtype).reshape(shape)


def _rounded(size: int) -> int:
    """Return the allocated size: rounded up to one of few sizes, so that freed blocks can be used again."""
    step = max(mmap.PAGESIZE, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
