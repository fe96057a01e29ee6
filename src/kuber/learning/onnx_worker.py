"""Process that runs one untrusted ONNX graph under limits: `python -m kuber.learning.onnx_worker`.

It reads a line of JSON and the graph, replies with a line of JSON, and then replies to each batch of samples with its
logits. It does not load torch, and neither side unpickles anything. The other side is `kuber.learning.onnx_model`.
"""

import json
import os
import sys
from math import prod
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnxruntime

from kuber.errors import first_line
from kuber.learning.kernel_confinement import deny_files_and_network
from kuber.learning.onnx_check import Refused, checked_model, serialized
from kuber.learning.sandbox import confine

MIN_PROBABILITY = 1e-6  # smaller probabilities are raised to it before the logarithm
DTYPES = {onnx.TensorProto.FLOAT: "<f4", onnx.TensorProto.DOUBLE: "<f8", onnx.TensorProto.INT64: "<i8"}


def main() -> None:
    inlet, outlet = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that nothing a library prints is read as a reply
    header = json.loads(inlet.readline())
    data = inlet.read(header["size"])
    confine(memory_bytes=header["memory_bytes"])
    denied = deny_files_and_network()
    out_of_memory = f"it needs more than {header['memory_bytes']} bytes of memory"
    shape, classes = tuple(header["input_shape"]), header["classes"]
    try:
        network = Network(data, shape, classes, memory_bytes=header["memory_bytes"])
        for samples in (2, header["batch"]):
            network.run(np.zeros((samples, *shape), network.dtype))
    except Refused as refused:
        _send_line(outlet, {"error": _plain(refused)})
        return
    except MemoryError:
        _send_line(outlet, {"error": out_of_memory})
        return
    except Exception as unexpected:  # noqa: BLE001 - whatever a hostile file makes a library raise is a reason
        _send_line(outlet, {"error": f"a part of it is malformed ({type(unexpected).__name__})"})
        return
    _send_line(outlet, {"dtype": network.dtype, "denied_by": " and ".join(denied)})
    width = prod(shape) * np.dtype(network.dtype).itemsize
    while count := int.from_bytes(inlet.read(8), "little"):
        batch = np.frombuffer(inlet.read(count * width), network.dtype).reshape(count, *shape)
        try:
            logits, error = network.run_in_batches(batch, header["batch"]).astype("<f4").tobytes(), b""
        except Refused as refused:
            logits, error = b"", _plain(refused).encode()
        except MemoryError:
            logits, error = b"", out_of_memory.encode()
        outlet.write(len(error).to_bytes(8, "little") + error + logits)
        outlet.flush()


class Network:
    """A checked graph, ready to run. Raises Refused when it is not allowed, malformed or does not fit."""

    def __init__(self, data: bytes, shape: tuple[int, ...], classes: int, *, memory_bytes: int) -> None:
        model = checked_model(data, memory_bytes=memory_bytes)
        self._input, self.dtype = _input(model.graph, shape)
        self._output, self._probabilities = _output(model.graph)
        self._classes = classes
        checked = serialized(model)
        del model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the bytes look like
        try:
            self._session = onnxruntime.InferenceSession(checked, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime raises classes of its own
            raise Refused(f"it cannot be loaded: {first_line(error)}") from None

    def run_in_batches(self, samples: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
        """Return the logits of any number of samples, run in batches of one size: a graph cannot tell them apart.

        The last batch is filled with its last sample.
        """
        logits = []
        for start in range(0, len(samples), size):
            batch = samples[start : start + size]
            missing = size - len(batch)
            filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            logits.append(self.run(filled)[: len(batch)])
        return np.concatenate(logits)

    def run(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the logits of a batch, shape (batch, classes)."""
        try:
            (output,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # noqa: BLE001 - onnxruntime raises classes of its own
            raise Refused(f"it cannot be run: {first_line(error)}") from None
        expected = len(batch), self._classes
        if not isinstance(output, np.ndarray) or output.shape != expected or output.dtype.kind != "f":
            shape = getattr(output, "shape", None)
            raise Refused(f"for {expected[0]} samples it returns shape {shape}, not {expected}")
        return np.log(np.maximum(output, MIN_PROBABILITY)) if self._probabilities else output


def _input(graph: onnx.GraphProto, shape: tuple[int, ...]) -> tuple[str, str]:
    """Return name and numpy dtype of the one input."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise Refused(f"it has {len(inputs)} inputs, not one")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in DTYPES:
        raise Refused("its input is neither float32, float64 nor int64")
    lengths = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    if kind.HasField("shape") and (
        len(lengths) != 1 + len(shape)
        or any(length not in (None, expected) for length, expected in zip(lengths[1:], shape, strict=True))
    ):
        raise Refused(f"its input has shape {lengths}, but samples of the task have {list(shape)}")
    if kind.HasField("shape") and lengths[0] is not None:
        raise Refused(f"it takes only batches of {lengths[0]} samples")
    return inputs[0].name, DTYPES[kind.elem_type]


def _output(graph: onnx.GraphProto) -> tuple[str, bool]:
    """Return the name of the output to read, and whether it holds probabilities instead of logits."""
    names = [value.name for value in graph.output]
    for name in ("logits", "probabilities"):
        if name in names:
            return name, name == "probabilities"
    if len(names) != 1:
        raise Refused("it has several outputs, none of them named logits or probabilities")
    return names[0], False


def _plain(refused: Refused) -> str:
    """Return the reason as ASCII text without control characters, since it quotes the graph."""
    return "".join(character if " " <= character <= "~" else "?" for character in str(refused)[:1000])


def _send_line(outlet: BinaryIO, reply: dict[str, str]) -> None:
    outlet.write(json.dumps(reply).encode() + b"\n")
    outlet.flush()


if __name__ == "__main__":
    main()
