"""ONNX graphs, which run without the model's code: a graph as an nn.Module.

A graph runs in a process of its own, on one thread, with limits on memory and time, and without files or network: see
`kuber.learning.onnx_worker`.
"""

import json
import logging
import math
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
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, TimeLimitError
from kuber.learning.time_budget import PHASE_SHARE, TimeAccount, TimeBudget

log = logging.getLogger("kuber")

MAX_REQUEST = 1024  # samples in one request to the process
# Samples that a graph is run with at once, whatever the batch of the caller, so that it cannot behave differently for
# other sizes. A sample of resnet20 takes as long as in batches of 128, one of cnn 8 % less.
BATCH = 32
_DTYPES = ("<f4", "<f8", "<i8")  # of inputs
_SHORTEST_WAIT = 0.02  # seconds
_MAX_MESSAGE = 1 << 16  # bytes of a JSON line or an error message


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphLimits:
    """Limits on one ONNX graph: its size, memory and time."""

    bytes: int = 512 << 20  # of the file
    memory_bytes: int = 2 << 30  # in addition to what the process needs before it loads the graph
    load_seconds: float = 60.0  # to start the process and load the graph
    seconds: float = 30.0  # for one request, of at most 1,024 samples
    evaluation_seconds: float = 30.0  # of processor time, to load it, and for one evaluation of a teacher
    evaluation_wall_seconds: float = math.inf  # on the clock
    phase_seconds: float = 60.0  # of processor time, for a teacher in one phase; more where it is 95 % of the phase


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
        self._time = TimeAccount()  # an object: `evaluation_mode` puts the attributes of modules back
        self._process = _start()
        self._finalizer = weakref.finalize(self, _end, self._process)
        shapes = {"input_shape": self._shape, "classes": classes}
        header = {"size": len(graph), "memory_bytes": limits.memory_bytes, "batch": BATCH} | shapes
        started = time.monotonic()
        deadline = started + limits.load_seconds
        self._begin(TimeBudget(started=started, seconds=limits.evaluation_seconds))
        self._send(json.dumps(header).encode() + b"\n" + graph, deadline)
        reply = self._read_line(deadline)
        if reply.get("dtype") not in _DTYPES:
            self.close()
            reason = reply.get("error", "its process returned neither a type nor an error")
            raise CorruptKnowledgeError(f"The ONNX graph is refused: {reason}.")
        self._time.budget = None
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
            logits = [self._run(batch[start : start + MAX_REQUEST]) for start in range(0, len(batch), MAX_REQUEST)]
        return torch.from_numpy(np.concatenate(logits)).to(x.device)

    def begin_evaluation(self, *, at_least: float = 0.0) -> None:
        """Allow the time of one evaluation from now on, that of the limits or `at_least` these seconds.

        Beyond it, `forward` raises TimeLimitError.
        """
        limits, started = self._limits, time.monotonic()
        seconds = max(limits.evaluation_seconds, at_least)
        self._begin(TimeBudget(started=started, seconds=seconds, wall_seconds=limits.evaluation_wall_seconds))
        self._time.evaluating = True

    def begin_phase(self) -> None:
        """Allow the time of one phase from now on: a multiple of that of the last evaluation, if there was one."""
        if self._time.evaluating and self._time.batches:
            self._time.pace = self._time_used() / self._time.batches
        seconds = self._limits.phase_seconds
        self._begin(TimeBudget(started=time.monotonic(), seconds=seconds, pace=self._time.pace, share=PHASE_SHARE))
        self._time.evaluating = False

    def again(self) -> "OnnxModel":
        """Return the same graph in a process of its own, without a budget of time."""
        return OnnxModel(self.graph, input_shape=self._shape, classes=self._classes, limits=self._limits)

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _run(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        started = time.monotonic()
        deadline = started + self._limits.seconds
        self._time.waiting_since = started
        self._time.batches += -(-len(batch) // BATCH)
        self._send(len(batch).to_bytes(8, "little") + batch.tobytes(), deadline)
        error_bytes = int.from_bytes(self._receive(8, deadline), "little")
        if error_bytes:
            reason = self._receive(min(error_bytes, _MAX_MESSAGE), deadline).decode(errors="replace")
            if error_bytes > _MAX_MESSAGE:
                self.close()  # the rest would be read as logits
            raise CorruptKnowledgeError(f"The ONNX graph is refused: {reason}.")
        data = self._receive(len(batch) * self._classes * 4, deadline)
        self._time.waited += time.monotonic() - started
        self._time.waiting_since = None
        if self._time_left() < 0:
            self._exceeded()
        return np.frombuffer(data, "<f4").reshape(len(batch), self._classes).copy()

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._process.stdin is not None
        rest = memoryview(data)
        try:
            target = self._process.stdin.fileno()
            while rest:
                _, ready, _ = select.select([], [target], [], max(0.0, deadline - time.monotonic()))
                if not ready:  # the process has stopped to read
                    self._exceeded()
                rest = rest[os.write(target, rest) :]  # as much as the pipe takes
        except (BrokenPipeError, ValueError):
            self._fail()

    def _read_line(self, deadline: float) -> dict[str, str]:
        data = bytearray()
        while not data.endswith(b"\n") and len(data) < _MAX_MESSAGE:
            data += self._receive(1, deadline)
        try:
            reply = json.loads(data)
        except ValueError:
            reply = None
        return reply if isinstance(reply, dict) else {}

    def _receive(self, count: int, deadline: float) -> bytearray:
        assert self._process.stdout is not None
        data, source = bytearray(), self._process.stdout.fileno()
        while len(data) < count:
            left = self._time_left()
            rest = deadline - time.monotonic()
            ready, _, _ = select.select([source], [], [], max(0.0, min(rest, max(left, _SHORTEST_WAIT))))
            if not ready:
                if rest <= 0 or self._time_left() < 0:
                    self._exceeded()
                continue
            piece = os.read(source, count - len(data))
            if not piece:
                self._fail()
            data += piece
        return data

    def _begin(self, budget: TimeBudget) -> None:
        self._time.budget, self._time.batches, self._time.waited = budget, 0, 0.0
        self._time.cpu_before = self._cpu_seconds() or 0.0

    def _time_left(self) -> float:
        """Return the seconds left of the budget, infinite without one."""
        if self._time.budget is None:
            return math.inf
        return self._time.budget.left(self._time_used(), self._time.batches, time.monotonic())

    def _time_used(self) -> float:
        """Return the processor time of the process since the budget began; where it is not known, the time waited."""
        cpu = self._cpu_seconds()
        if cpu is not None:
            return cpu - self._time.cpu_before
        return self._time.waited + (
            0.0 if self._time.waiting_since is None else time.monotonic() - self._time.waiting_since
        )

    def _cpu_seconds(self) -> float | None:
        """Return the processor time of the process; None if the system does not say, or the process has ended."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            return time.clock_gettime((~self._process.pid << 3) | 2)  # clock_getcpuclockid(3) makes this number
        except OSError:
            return None

    def _exceeded(self) -> NoReturn:
        used, samples = self._time_used(), self._time.batches * BATCH
        self.close()
        spent = f", {used:.1f} s for {samples} samples" if self._time.budget is not None and samples else ""
        raise TimeLimitError(f"The ONNX graph exceeded its time limit{spent}; do not use it.")

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
    process = subprocess.Popen(
        [sys.executable, "-m", "kuber.learning.onnx_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=gettempdir(),
        env=environment,
        bufsize=0,
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)  # a process that does not read must not hold the caller
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    with process:  # closes the pipes and waits
        process.kill()
