"""ONNX graphs, which run without the model's code: a graph as an nn.Module.

A graph runs in a process of its own, on one thread, with limits on memory and time, and without files or network: see
`kuber.learning.onnx_worker`.
"""

import json
import logging
import os
import select
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from tempfile import gettempdir
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError

log = logging.getLogger("kuber")

MAX_BATCH = 1024  # samples in one request to the process
_MAX_MESSAGE = 1 << 16  # bytes of a JSON line or an error message


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphLimits:
    """Limits on one ONNX graph: its size, memory and time."""

    bytes: int = 512 << 20  # of the file
    memory_bytes: int = 2 << 30  # in addition to what the process needs before it loads the graph
    load_seconds: float = 60.0  # to start the process and load the graph
    seconds: float = 30.0  # for one batch


class OnnxModel(nn.Module):
    """An ONNX graph as a network that returns logits, shape (batch, classes), without gradient.

    Its process ends with `close`, or when this object is collected. Raises CorruptKnowledgeError when the graph is
    invalid, IncompatibleKnowledgeError when it does not fit the samples, exceeds the limits, or onnxruntime is
    missing.
    """

    def __init__(
        self, graph: bytes, *, input_shape: tuple[int, ...], classes: int, limits: GraphLimits = GraphLimits()
    ) -> None:
        super().__init__()
        check_installed()
        if len(graph) > limits.bytes:
            raise IncompatibleKnowledgeError(
                f"The ONNX graph has {len(graph)} bytes, more than the limit of {limits.bytes}."
            )
        self.graph = graph
        self._shape = tuple(input_shape)
        self._classes = classes
        self._limits = limits
        self._lock = Lock()
        self._process = _start()
        self._finalizer = weakref.finalize(self, _end, self._process)
        shapes = {"input_shape": self._shape, "classes": classes}
        header = {"size": len(graph), "memory_bytes": limits.memory_bytes} | shapes
        deadline = time.monotonic() + limits.load_seconds
        self._send(json.dumps(header).encode() + b"\n" + graph)
        reply = self._read_line(deadline)
        if "error" in reply:
            self.close()
            raise CorruptKnowledgeError(f"The ONNX graph is refused: {reply['error']}.")
        self._dtype = np.dtype(reply["dtype"])
        if not reply.get("denied_by"):
            _warn_of_kernel()

    def extra_repr(self) -> str:
        return f"input_shape={self._shape}, classes={self._classes}, {len(self.graph):,} bytes"

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of samples, shape (batch, classes), on its device."""
        if tuple(x.shape[1:]) != self._shape:
            raise IncompatibleKnowledgeError(
                f"The ONNX graph takes samples of shape {self._shape}, not {tuple(x.shape[1:])}."
            )
        batch = np.ascontiguousarray(x.detach().cpu().numpy().astype(self._dtype, copy=False))
        with self._lock:
            logits = [self._run(batch[start : start + MAX_BATCH]) for start in range(0, len(batch), MAX_BATCH)]
        return torch.from_numpy(np.concatenate(logits)).to(x.device)

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _run(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        deadline = time.monotonic() + self._limits.seconds
        self._send(len(batch).to_bytes(8, "little") + batch.tobytes())
        error_bytes = int.from_bytes(self._receive(8, deadline), "little")
        if error_bytes:
            reason = self._receive(min(error_bytes, _MAX_MESSAGE), deadline).decode(errors="replace")
            raise CorruptKnowledgeError(f"The ONNX graph is refused: {reason}.")
        data = self._receive(len(batch) * self._classes * 4, deadline)
        return np.frombuffer(data, "<f4").reshape(len(batch), self._classes).copy()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except (BrokenPipeError, ValueError):
            self._fail()

    def _read_line(self, deadline: float) -> dict[str, str]:
        data = bytearray()
        while not data.endswith(b"\n") and len(data) < _MAX_MESSAGE:
            data += self._receive(1, deadline)
        reply: dict[str, str] = json.loads(data)
        return reply

    def _receive(self, count: int, deadline: float) -> bytearray:
        assert self._process.stdout is not None
        data, source = bytearray(), self._process.stdout.fileno()
        while len(data) < count:
            ready, _, _ = select.select([source], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise IncompatibleKnowledgeError("The ONNX graph exceeded its time limit; do not use it.")
            piece = os.read(source, count - len(data))
            if not piece:
                self._fail()
            data += piece
        return data

    def _fail(self) -> None:
        self.close()
        raise IncompatibleKnowledgeError(
            f"The process of the ONNX graph exited; it may need over {self._limits.memory_bytes} bytes of memory."
        )


def check_installed() -> None:
    """Raise IncompatibleKnowledgeError when onnx or onnxruntime is not installed."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        raise IncompatibleKnowledgeError("ONNX graphs need onnx and onnxruntime: pip install 'kuber[onnx]'.")


@cache
def _warn_of_kernel() -> None:
    """Warn, once, that the kernel does not confine the processes of graphs."""
    log.warning(
        "This system has neither Landlock nor seccomp: the process of an ONNX graph could read files and use the "
        "network if onnxruntime has a vulnerability; run entities that pull from strangers in a container."
    )


def _start() -> "subprocess.Popen[bytes]":
    # The process gets nothing of our environment but the paths where Python finds its packages.
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath}
    environment |= {
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }  # Landlock is for one thread
    return subprocess.Popen(
        [sys.executable, "-m", "kuber.learning.onnx_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=gettempdir(),
        env=environment,
        bufsize=0,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    with process:  # closes the pipes and waits
        process.kill()
