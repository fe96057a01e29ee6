"""The engine `processes`: work steps shared among worker processes of this machine."""

import io
import os
import pickle
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch

from kuber.entity.work import Work
from kuber.errors import TrainingError
from kuber.experiment.engines.protocol import THREADS, unheard
from kuber.experiment.forks import CONTEXT, warm_up
from kuber.learning.runtime import keep_freed_memory


class Processes:
    """Shares work steps among worker processes of one thread each; samples are mapped by all of them, not sent."""

    def __init__(self, workers: int) -> None:
        warm_up()
        self._pool = ProcessPoolExecutor(workers, mp_context=CONTEXT, initializer=_begin)

    def submit(self, work: Work) -> Future[Any]:
        outer: Future[Any] = Future()

        def hear(inner: Future[bytes]) -> None:
            if inner.cancelled():
                outer.cancel()
                return
            error = inner.exception()
            if isinstance(error, BrokenProcessPool):
                error = TrainingError("A worker process ended unexpectedly, perhaps for want of memory; try again.")
            if error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(pickle.loads(inner.result()))  # noqa: S301 - our own worker wrote it

        self._pool.submit(_do, _packed(work)).add_done_callback(hear)
        return outer

    def close(self) -> None:
        """Wait for the end of the pool, whose workers were told to end."""
        self._pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(THREADS)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _do(packed: bytes) -> bytes:
    work: Work = pickle.loads(packed)  # noqa: S301 - our own parent wrote it
    return _packed(work.do(unheard))


class _Packer(pickle.Pickler):
    """Tensors as plain bytes: torch's own way would open a shared memory file for each."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return _tensor, (np.ascontiguousarray(value.numpy()), tuple(value.shape))
        return NotImplemented


def _tensor(array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy()).reshape(shape)


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Packer(buffer, protocol=5).dump(value)
    return buffer.getvalue()
