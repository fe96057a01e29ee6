"""Networks as ONNX graphs, which run without their code: our own written as one, and those of others run as one.

A graph of others runs in a process of its own, on one thread, under limits of memory and time, and may not read or
write a file: see `kuber.learning.onnx_worker`.
"""

import io
import json
import os
import select
import subprocess
import sys
import time
import warnings
import weakref
from dataclasses import dataclass
from importlib.util import find_spec
from tempfile import gettempdir
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError

OPSET = 17  # of the graphs we write: known to onnxruntime since 1.12
MOST_SAMPLES = 1024  # sent at once
_ANSWER = 1 << 16  # bytes of an answer in words, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphLimits:
    """What one graph may take."""

    bytes: int = 512 << 20  # of the file
    memory_bytes: int = 2 << 30  # beside what the process needs before it loads the graph
    load_seconds: float = 60.0  # to start the process and load the graph
    seconds: float = 30.0  # for one batch


class OnnxModel(nn.Module):
    """An ONNX graph as a network: takes a batch, gives its logits, shape (batch, classes), on the batch's device.

    Its process runs from here until this object goes. No gradient flows through it. Raises CorruptKnowledgeError
    when the graph is unsound, IncompatibleKnowledgeError when it does not fit the samples, exceeds the limits, or
    onnxruntime is not installed.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        input_shape: tuple[int, ...],
        classes: int,
        limits: GraphLimits = GraphLimits(),
    ) -> None:
        super().__init__()
        check_installed()
        if len(graph) > limits.bytes:
            raise IncompatibleKnowledgeError(f"The ONNX graph has {len(graph)} bytes, over {limits.bytes}.")
        self.graph = graph
        self._shape = tuple(input_shape)
        self._classes = classes
        self._limits = limits
        self._lock = Lock()
        self._process = _start()
        self._finalizer = weakref.finalize(self, _end, self._process)
        told = {
            "size": len(graph),
            "memory_bytes": limits.memory_bytes,
            "input_shape": self._shape,
            "classes": classes,
        }
        deadline = time.monotonic() + limits.load_seconds
        self._send(json.dumps(told).encode() + b"\n" + graph)
        answer = self._line(deadline)
        if "error" in answer:
            self.close()
            raise CorruptKnowledgeError(f"The ONNX graph is refused: {answer['error']}.")
        self._dtype = np.dtype(answer["dtype"])

    def forward(self, x: Tensor) -> Tensor:
        """The logits of a batch of samples."""
        if tuple(x.shape[1:]) != self._shape:
            raise IncompatibleKnowledgeError(
                f"The ONNX graph takes samples of shape {self._shape}, not {tuple(x.shape[1:])}."
            )
        batch = np.ascontiguousarray(x.detach().cpu().numpy().astype(self._dtype, copy=False))
        with self._lock:
            said = [self._ask(batch[start : start + MOST_SAMPLES]) for start in range(0, len(batch), MOST_SAMPLES)]
        return torch.from_numpy(np.concatenate(said)).to(x.device)

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _ask(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        deadline = time.monotonic() + self._limits.seconds
        self._send(len(batch).to_bytes(8, "little") + batch.tobytes())
        fault = int.from_bytes(self._receive(8, deadline), "little")
        if fault:
            words = self._receive(min(fault, _ANSWER), deadline).decode(errors="replace")
            raise CorruptKnowledgeError(f"The ONNX graph is refused: {words}.")
        data = self._receive(len(batch) * self._classes * 4, deadline)
        return np.frombuffer(data, "<f4").reshape(len(batch), self._classes).copy()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        left = memoryview(data)
        try:
            while left:
                left = left[self._process.stdin.write(left) :]
        except (BrokenPipeError, ValueError):
            self._fail()

    def _line(self, deadline: float) -> dict[str, str]:
        data = bytearray()
        while not data.endswith(b"\n") and len(data) < _ANSWER:
            data += self._receive(1, deadline)
        answer: dict[str, str] = json.loads(data)
        return answer

    def _receive(self, count: int, deadline: float) -> bytearray:
        assert self._process.stdout is not None
        data, source = bytearray(), self._process.stdout.fileno()
        while len(data) < count:
            ready, _, _ = select.select([source], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise IncompatibleKnowledgeError("The ONNX graph took longer than it may; do not use it.")
            piece = os.read(source, count - len(data))
            if not piece:
                self._fail()
            data += piece
        return data

    def _fail(self) -> None:
        self.close()
        raise IncompatibleKnowledgeError(
            f"The process of the ONNX graph ended; it may need more than {self._limits.memory_bytes} bytes."
        )


def export(network: nn.Module, *, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> bytes:
    """The network in evaluation mode as a single ONNX graph of standard operators, for batches of any size.

    Samples have shape `input_shape` and `dtype`. Raises IncompatibleKnowledgeError when it cannot be written so, or
    answers otherwise than the network.
    """
    check_installed()
    if isinstance(network, OnnxModel):
        return network.graph
    first = next(iter(network.parameters()), torch.zeros(()))
    training, file = network.training, io.BytesIO()
    network.eval()
    try:
        probe = torch.zeros(2, *input_shape, dtype=dtype, device=first.device)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # it tells of what it leaves out; what matters is checked below
            torch.onnx.export(
                network,
                (probe,),
                file,  # type: ignore[arg-type]
                # The newer exporter writes the same graph; measured 5.2 against 0.1 s for resnet20.
                dynamo=False,
                opset_version=OPSET,
                input_names=["x"],
                output_names=["logits"],
                dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
            )
    except Exception as error:  # noqa: BLE001 - the exporter raises whatever a stranger's forward raises
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise IncompatibleKnowledgeError(f"The model cannot be written as an ONNX graph: {reason}.") from None
    finally:
        network.train(training)
    return file.getvalue()


def check_faithful(network: nn.Module, graph: bytes, x: Tensor, *, classes: int) -> None:
    """IncompatibleKnowledgeError unless the graph answers a batch as the network does."""
    training = network.training
    network.eval()
    portable = OnnxModel(graph, input_shape=tuple(x.shape[1:]), classes=classes)
    try:
        with torch.no_grad():
            ours, its = network(x).float(), portable(x)
    finally:
        portable.close()
        network.train(training)
    if not torch.allclose(ours, its, rtol=1e-2, atol=1e-2):
        raise IncompatibleKnowledgeError(
            "The model answers otherwise as an ONNX graph, as where its Python code depends on the samples; publish "
            "without one."
        )


def check_installed() -> None:
    """IncompatibleKnowledgeError when what runs graphs is not installed."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        raise IncompatibleKnowledgeError("ONNX graphs need onnx and onnxruntime: pip install 'kuber[onnx]'.")


def _start() -> "subprocess.Popen[bytes]":
    # Nothing of our environment but where Python finds its packages.
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath}
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
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
