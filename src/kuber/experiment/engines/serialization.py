"""Serialization of work steps and results: a small message, and large buffers beside it (pickle protocol 5)."""

import io
import pickle
import traceback
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from kuber.entity.work.learner import Learner
from kuber.errors import KUberError, TrainingError
from kuber.experiment.engines.mapped_memory import Bytes, as_bytes, as_tensor

INLINE_BYTES = 8192  # buffers up to this size are part of the message
MAX_MESSAGE_BYTES = 1 << 15  # a pipe surely has room for it; a longer message is passed as a buffer
CACHE_BYTES = 16 << 20  # of serialized learners
CACHE_ENTRIES = 2048  # of deserialized learners


class PayloadPart(NamedTuple):
    """A buffer beside a message, and the tensor it belongs to, if any."""

    array: Bytes
    tensor: torch.Tensor | None


class Payload(NamedTuple):
    """A serialized value: `pickle.loads(message, buffers=parts)` restores it."""

    message: bytes
    parts: list[PayloadPart]


def pack(value: Any, packer: "type[Packer] | None" = None, context: Any = None) -> Payload:
    """Serialize a value without copying large buffers. `context` is passed to the packer."""
    parts: list[PayloadPart] = []
    tensors: dict[int, torch.Tensor] = {}

    def separate(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes <= INLINE_BYTES:
            return True  # part of the message
        array = np.frombuffer(view, np.uint8)
        parts.append(PayloadPart(array, tensors.get(array.ctypes.data)))
        return False

    message = io.BytesIO()
    (packer or Packer)(message, tensors, separate, context).dump(value)
    return Payload(message.getvalue(), parts)


def unpack(message: bytes | memoryview, parts: Sequence[Any]) -> Any:
    """Restore a value; its tensors share the memory of the parts."""
    return pickle.loads(message, buffers=parts)  # noqa: S301 - our own parent or worker wrote it


def portable_error(error: Exception) -> Exception:
    """Make the error of a work step picklable; its traceback becomes a note."""
    if not isinstance(error, KUberError):
        error.add_note(traceback.format_exc())
    try:  # unpickling fails for a class whose constructor takes other arguments than it passes on
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written here, in the same line
    except Exception:  # noqa: BLE001 - a foreign class may raise anything
        return TrainingError(f"A work step failed: {type(error).__name__}: {error}.")
    return error


class Packer(pickle.Pickler):
    """Pickles tensors as plain buffers; torch would open a shared memory file for each."""

    def __init__(self, file: io.BytesIO, tensors: dict[int, torch.Tensor], separate: Any, context: Any) -> None:
        super().__init__(file, protocol=5, buffer_callback=separate)
        self._tensors = tensors
        self.context = context

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            array = as_bytes(value)
            self._tensors[array.ctypes.data] = value
            return as_tensor, (array, value.dtype, tuple(value.shape))
        return NotImplemented


class LearnerCache:
    """Serialized learners: an entity's learner is the same in each of its work steps."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[Learner, bytes]] = {}  # by id; holds the learner, so that ids stay unique
        self._size = 0

    def __call__(self, learner: Learner) -> bytes:
        owner, written = self._written.get(id(learner), (None, b""))
        if owner is not learner:
            written = pickle.dumps(learner, protocol=5)
            self._size += len(written)
            if self._size > CACHE_BYTES:
                self._written, self._size = {}, len(written)
            self._written[id(learner)] = learner, written
        return written


class LearnerPacker(Packer):
    """Pickles learners with a `LearnerCache`; the receiver deserializes each once, and maps its samples once."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Learner):
            return load_learner, (self.context(value),)
        return super().reducer_override(value)


@lru_cache(maxsize=CACHE_ENTRIES)
def load_learner(written: bytes) -> Learner:
    """Deserialize a learner; equal bytes give the same object."""
    learner: Learner = pickle.loads(written)  # noqa: S301 - our own parent wrote it
    return learner
