"""Export of networks as ONNX graphs, and the check that a graph returns the logits of its network.

What training leaves around a network (autocast, wrapped `forward` methods, reduced precision, torch's fast path of
attention) is taken away while a graph is made, and put back.
"""

import builtins
import inspect
import io
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from kuber.errors import IncompatibleKnowledgeError, KnowledgeError, first_line
from kuber.learning.evaluation import evaluation_mode
from kuber.learning.onnx_model import GraphLimits, OnnxModel, check_installed

OPSET = 17  # of exported graphs: supported by onnxruntime since 1.12
_REDUCED = (torch.bfloat16, torch.float16)  # few operators of onnxruntime take them
_LEN_WARNING = "Using len to get tensor shape"  # of torch's tracer: the traced length is a constant
_TOLERANCE = 1e-2  # of logits, relative to the largest


def export(network: nn.Module, *, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> bytes:
    """Return the network in evaluation mode as one ONNX graph of standard operators, for batches of any size.

    Samples have shape `input_shape` and `dtype`. Weights and samples of reduced precision become float32. Raises
    IncompatibleKnowledgeError when the network cannot be exported.
    """
    check_installed()
    if isinstance(network, OnnxModel):
        return network.graph
    probe = torch.zeros(2, *input_shape, dtype=_full(dtype), device=_device(network))
    try:
        with exportable(network):
            graph, has_constant_length = _trace(network, probe)
            if has_constant_length:
                with _traced_len(network):
                    graph, _ = _trace(network, probe)
    except Exception as error:  # noqa: BLE001 - a foreign forward may raise anything
        raise IncompatibleKnowledgeError(
            f"The model cannot be exported as an ONNX graph: {first_line(error)}."
        ) from None
    return graph


def faithful_graph(network: nn.Module, x: Tensor, *, classes: int) -> bytes:
    """Return the network as a graph, compared with it on the samples `x`.

    Raises IncompatibleKnowledgeError when the network cannot be exported, CorruptKnowledgeError or
    IncompatibleKnowledgeError when the graph cannot be run or returns other logits.
    """
    if isinstance(network, OnnxModel):
        return network.graph
    limit = GraphLimits().bytes
    size = sum(4 * tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
    if size > limit:
        raise IncompatibleKnowledgeError(
            f"The model's weights have {size} bytes, more than the limit of {limit} for an ONNX graph."
        )
    graph = export(network, input_shape=tuple(x.shape[1:]), dtype=x.dtype)
    check_equivalent(network, graph, x, classes=classes)
    return graph


def check_equivalent(network: nn.Module, graph: bytes, x: Tensor, *, classes: int) -> None:
    """Raise IncompatibleKnowledgeError unless graph and network return the same logits, for `x` and each row alone.

    The graph was traced with two samples; one that only takes batches of two fails here. Rows alone show a branch in
    Python code that samples decide, as far as these samples differ in it.
    """
    x = x.to(_device(network), _full(x.dtype))
    exported = OnnxModel(graph, input_shape=tuple(x.shape[1:]), classes=classes)
    with closing(exported), exportable(network):
        for batch in (x, *(x[row : row + 1] for row in range(len(x)))):
            try:
                expected = network(batch).float()
            except KnowledgeError:
                raise
            except Exception as error:  # noqa: BLE001 - a foreign forward may raise anything
                raise IncompatibleKnowledgeError(
                    f"The model cannot be compared with its ONNX graph: {first_line(error)}."
                ) from None
            if len(batch) == 1 and expected.shape != (1, classes):
                continue  # the network drops the dimension of a batch of one, as by `squeeze`
            _check_close(expected, exported(batch))


def _check_close(expected: Tensor, actual: Tensor) -> None:
    tolerance = max(1e-6, _TOLERANCE * float(expected.abs().max()))
    if expected.shape != actual.shape or not torch.allclose(expected, actual, rtol=0.0, atol=tolerance):
        raise IncompatibleKnowledgeError(
            "The ONNX graph and the model return different logits, as when Python code branches on the samples; "
            "publish without a graph."
        )


@contextmanager
def exportable(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode, outside autocast, in float32, with its own forward methods."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(network))
        stack.enter_context(torch.no_grad())
        for kind in {"cpu", _device(network).type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(original_forward(network))
        stack.enter_context(_float32_weights(network))
        stack.enter_context(_without_extra_state(network))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)  # it has no ONNX operator
        yield


class _Traced(nn.Module):
    """A network for the exporter, whose calls of `train` do not reach the modules of the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False

    def train(self, mode: bool = True) -> "_Traced":
        return self

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits


def _trace(network: nn.Module, probe: Tensor) -> tuple[bytes, bool]:
    """Return the graph, and whether the length of a tensor is a constant in it."""
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught, _without_listing():
        warnings.simplefilter("always")  # about what it leaves out; publishers run `check_equivalent`
        traced: nn.Module = _Traced(network)
        if any(isinstance(module, ScriptModule) for module in network.modules()):
            traced = torch.jit.trace(traced, probe, check_trace=False)  # type: ignore[no-untyped-call]
        torch.onnx.export(
            traced,
            (probe,),
            file,  # type: ignore[arg-type]
            # The newer exporter writes the same graph in 5.2 s instead of 0.1 s (resnet20).
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
        )
    return file.getvalue(), any(_LEN_WARNING in str(warning.message) for warning in caught)


@contextmanager
def _without_listing() -> Iterator[None]:
    """Hold back the listing of the graph, which the exporter prints when it fails."""
    # torch 2.10 to 2.13 switch the log on at each export whatever it was, and leave it on.
    switch, enabled = torch._C._jit_set_onnx_log_enabled, torch._C._jit_is_onnx_log_enabled()
    switch(False)
    torch._C._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        yield
    finally:
        torch._C._jit_set_onnx_log_enabled = switch
        switch(enabled)


@contextmanager
def _traced_len(network: nn.Module) -> Iterator[None]:
    """Let `len(x)` in the network's forward methods be traced, as `x.shape[0]` is, instead of a constant."""
    kinds = [type(module) for module in network.modules() if not isinstance(module, ScriptModule)]
    spaces = [getattr(inspect.unwrap(kind.forward), "__globals__", {}) for kind in kinds]
    spaces = [space for space in {id(space): space for space in spaces}.values() if "len" not in space]

    def traced(value: Any) -> Any:
        return value.shape[0] if isinstance(value, Tensor) and value.dim() else builtins.len(value)

    for space in spaces:
        space["len"] = traced
    try:
        yield
    finally:
        for space in spaces:
            del space["len"]


@contextmanager
def original_forward(network: nn.Module) -> Iterator[None]:
    """Call the modules' own `forward` where a trainer has wrapped it, as for mixed precision."""
    wrapped: list[tuple[dict[str, Any], Any]] = []
    for module in network.modules():
        attributes = vars(module)
        forward, original = attributes.get("forward"), attributes.get("_original_forward")
        if forward is None or isinstance(module, ScriptModule):
            continue
        if callable(original):  # accelerate keeps it there
            wrapped.append((attributes, forward))
            attributes["forward"] = original
        elif _function(forward) is _function(type(module).forward):
            wrapped.append((attributes, attributes.pop("forward")))
    try:
        yield
    finally:
        for attributes, forward in wrapped:
            attributes["forward"] = forward


@contextmanager
def _float32_weights(network: nn.Module) -> Iterator[None]:
    """Hold copies in float32 in place of parameters and buffers of reduced precision."""
    copies: dict[int, Tensor] = {}  # tied tensors stay tied
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    recurrent = []
    for module in network.modules():
        kinds: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in kinds:
            for name, tensor in tensors.items():
                if tensor is not None and tensor.dtype in _REDUCED:
                    if id(tensor) not in copies:
                        copy = tensor.detach().float()
                        is_parameter = isinstance(tensor, nn.Parameter)
                        copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
                    replaced.append((tensors, name, tensor))
        if isinstance(module, nn.RNNBase):
            recurrent.append((module, module._flat_weights))
    try:
        for tensors, name, tensor in replaced:
            tensors[name] = copies[id(tensor)]
        for module, _ in recurrent if replaced else ():
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
        yield
    finally:
        for tensors, name, tensor in replaced:
            tensors[name] = tensor
        for module, flat in recurrent:
            module._flat_weights = flat


@contextmanager
def _without_extra_state(network: nn.Module) -> Iterator[None]:
    """Hold back extra states: the exporter takes each entry of the state dict for a tensor."""
    base = nn.Module.get_extra_state
    modules = [module for module in network.modules() if getattr(type(module), "get_extra_state", base) is not base]
    for module in modules:
        vars(module)["get_extra_state"] = lambda: torch.zeros(0)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["get_extra_state"]


def _function(forward: Any) -> Any:
    """Return the plain function under decorators, of a method too."""
    forward = inspect.unwrap(forward)
    return getattr(forward, "__func__", forward)


def _full(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _REDUCED else dtype


def _device(network: nn.Module) -> torch.device:
    return next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
