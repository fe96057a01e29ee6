"""Work and results as they travel: a small message, and beside it the big tensors and arrays."""

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

INLINE_BYTES = 8192  # bytes that travel in the message
MAX_MESSAGE_BYTES = 1 << 15  # bytes of one that surely find room in a pipe; a longer one lies beside an empty one
CACHE_BYTES = 16 << 20  # bytes of learners that are kept
CACHE_ENTRIES = 2048  # learners


class PayloadPart(NamedTuple):
    """Bytes beside a message, and the tensor that they are of, where they are of one."""

    array: Bytes
    tensor: torch.Tensor | None


class Payload(NamedTuple):
    """What became of a value: `pickle.loads(message, buffers=parts)` would be it again."""

    message: bytes
    parts: list[PayloadPart]


def pack(value: Any, packer: "type[Packer] | None" = None, context: Any = None) -> Payload:
    """The parcel of a value; nothing big is copied. `context` is for a packer that needs one."""
    parts: list[PayloadPart] = []
    tensors: dict[int, torch.Tensor] = {}

    def beside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes <= INLINE_BYTES:
            return True  # to stay in the message
        array = np.frombuffer(view, np.uint8)
        parts.append(PayloadPart(array, tensors.get(array.ctypes.data)))
        return False

    message = io.BytesIO()
    (packer or Packer)(message, tensors, beside, context).dump(value)
    return Payload(message.getvalue(), parts)


def unpack(message: bytes | memoryview, parts: Sequence[Any]) -> Any:
    """The value of a parcel; its tensors share the memory of the parts."""
    return pickle.loads(message, buffers=parts)  # noqa: S301 - our own parent or worker wrote it


def portable_error(error: Exception) -> Exception:
    """The error of a work step as it can travel: a traceback cannot, its text can."""
    if not isinstance(error, KUberError):
        error.add_note(traceback.format_exc())
    try:  # a class that asks for other arguments than it keeps cannot be made again where the error arrives
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written here, in the same line
    except Exception:  # noqa: BLE001 - the class may be anybody's, and raise anything
        return TrainingError(f"A work step failed: {type(error).__name__}: {error}.")
    return error


class Packer(pickle.Pickler):
    """Tensors as plain bytes: torch's own way would open a shared memory file for each."""

    def __init__(self, file: io.BytesIO, tensors: dict[int, torch.Tensor], beside: Any, context: Any) -> None:
        super().__init__(file, protocol=5, buffer_callback=beside)
        self._tensors = tensors
        self.context = context

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            array = as_bytes(value)
            self._tensors[array.ctypes.data] = value
            return as_tensor, (array, value.dtype, tuple(value.shape))
        return NotImplemented


class LearnerCache:
    """Learners as bytes, written once: an entity's is the same in each of its steps."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[Learner, bytes]] = {}  # by id of the learner, which lives as long
        self._size = 0

    def __call__(self, learner: Learner) -> bytes:
        of, written = self._written.get(id(learner), (None, b""))
        if of is not learner:
            written = pickle.dumps(learner, protocol=5)
            self._size += len(written)
            if self._size > CACHE_BYTES:
                self._written, self._size = {}, len(written)
            self._written[id(learner)] = learner, written
        return written


class LearnerPacker(Packer):
    """Learners as `LearnerCache` has them; the other side reads each once, and maps its samples once."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Learner):
            return load_learner, (self.context(value),)
        return super().reducer_override(value)


@lru_cache(maxsize=CACHE_ENTRIES)
def load_learner(written: bytes) -> Learner:
    """The learner in these bytes, the same one each time."""
    learner: Learner = pickle.loads(written)  # noqa: S301 - our own parent wrote it
    return learner
