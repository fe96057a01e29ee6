"""Probe of a network: its answers with fixed weights to fixed inputs.

Networks of one class and equal tensors may still differ: in an activation, the number of heads, or the whole forward
pass. Their answers differ then, on every machine in the same way.
"""

import hashlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from kuber.learning.evaluation import evaluation_mode
from kuber.learning.model_call import Inputs, call_model, map_tensors, to_device
from kuber.learning.onnx_export import original_forward
from kuber.learning.random_state import SeededDraws
from kuber.learning.wrappers import plain_name

PRECISIONS = ((torch.float64, 6), (torch.float32, 2))  # dtype, and the decimals that every machine agrees on
_PROJECTIONS = 8  # numbers that the answers are reduced to
_BLOCK = 1 << 16  # numbers of a tensor that are drawn one by one; a larger one repeats them row by row, shifted
_SHIFT = 3


def probe(network: nn.Module, *, input_shape: tuple[int, ...], samples: Inputs | None = None) -> str | None:
    """Return the rounded answers of a network as a text; None if it cannot be run.

    It is run once, on one sample, in evaluation mode on the CPU: in float64, or else in float32. What travels as
    weights is replaced by numbers drawn from name and shape, so the answers do not depend on what was learned;
    buffers that do not travel are part of the network and stay. The input has shape `input_shape`, floating or else
    whole numbers, or the shapes and dtypes of `samples` if these are several tensors. The network is left as it was.
    """
    if any(isinstance(module, ScriptModule) for module in network.modules()):
        return None  # their tensors cannot be replaced
    own = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    devices = dict.fromkeys([torch.device("cpu"), own])  # its own for a forward pass that names it
    for dtype, decimals in PRECISIONS:
        for make in _inputs(input_shape, samples):
            for device in devices:
                try:
                    answers = _answers(network, make(dtype), dtype, device)
                except Exception as error:  # noqa: BLE001 - a foreign forward may raise anything
                    if "device" not in str(error):
                        break
                else:
                    return None if answers is None else _rounded(answers, decimals)
    return None


def _inputs(shape: tuple[int, ...], samples: Inputs | None) -> Iterator[Callable[[torch.dtype], Inputs]]:
    """Yield functions of a floating dtype that make the inputs to try, in order.

    Floating numbers are from 0 to 1 and whole ones are 0 and 1: these are valid pixels, and rows of any table.
    """
    if samples is not None and not isinstance(samples, Tensor):
        several = samples
        yield lambda dtype: map_tensors(several, lambda part: _input(tuple(part.shape[1:]), part.dtype, dtype))
        return
    yield lambda dtype: _input(shape, dtype, dtype)
    yield lambda dtype: _input(shape, torch.int64, dtype)


def _input(shape: tuple[int, ...], kind: torch.dtype, floating: torch.dtype) -> Tensor:
    values = _draw("input", (1, *shape), prod(shape)).reshape(1, *shape)
    return values.to(floating) if kind.is_floating_point else (values < 0.5).to(kind)


def _answers(network: nn.Module, inputs: Inputs, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with (
        evaluation_mode(network),
        original_forward(network),
        device,
        warnings.catch_warnings(),
        _replaced_tensors(network, dtype, device),
        SeededDraws(0),
    ):
        warnings.simplefilter("ignore")
        random.seed(0)  # evaluation_mode gives these two their states back
        np.random.seed(0)
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            numbers = list(_numbers(call_model(network, to_device(inputs, device))))
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
        return torch.cat(numbers) if numbers else None


def _numbers(output: Any) -> Iterator[Tensor]:
    """Yield the numbers in what a network returns: the logits if it names them, else every tensor."""
    if isinstance(output, Tensor):
        real = torch.view_as_real(output) if output.is_complex() else output
        yield real.detach().to("cpu", torch.float64).flatten()
    elif isinstance(getattr(output, "logits", None), Tensor):
        yield from _numbers(output.logits)
    elif isinstance(output, Mapping):
        for value in [output["logits"]] if "logits" in output else output.values():
            yield from _numbers(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _numbers(value)


def _rounded(answers: Tensor, decimals: int) -> str:
    """Return a few weighted sums of the answers, which no machine's rounding changes but for a rare boundary case."""
    length = answers.norm()
    if not torch.isfinite(length):
        return f"{decimals} {len(answers)} not finite"
    weights = 2 * _draw("projections", (_PROJECTIONS, len(answers)), _PROJECTIONS * len(answers)) - 1
    sums = (weights.reshape(_PROJECTIONS, -1) @ answers / length.clamp_min(1e-30)).tolist()
    return f"{decimals} {len(answers)} {length:.{decimals - 1}e} {[round(number, decimals) + 0.0 for number in sums]}"


@contextmanager
def _replaced_tensors(network: nn.Module, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Put other tensors into the modules inside the `with` block; the owner's tensors are not touched."""
    travelling = {id(value) for value in network.state_dict(keep_vars=True).values() if isinstance(value, Tensor)}
    places: list[tuple[dict[str, Any], str, Tensor]] = [
        (slots, name, tensor)
        for module in network.modules()
        for slots in (module._parameters, module._buffers)
        for name, tensor in slots.items()
        if tensor is not None
    ]
    names = {id(tensor): plain_name(name) for name, tensor in reversed([*_named(network)])}  # the first of tied ones
    replaced: dict[int, Tensor] = {}
    for _, _, tensor in places:
        if id(tensor) not in replaced:
            travels = id(tensor) in travelling and not tensor.is_complex()
            other = _replacement(names[id(tensor)], tensor) if travels else tensor.detach().to("cpu", copy=True)
            other = other.to(device, dtype) if other.is_floating_point() else other.to(device)
            is_parameter = isinstance(tensor, nn.Parameter)
            replaced[id(tensor)] = nn.Parameter(other, requires_grad=False) if is_parameter else other
    try:
        for slots, name, tensor in places:
            slots[name] = replaced[id(tensor)]
        yield
    finally:
        for slots, name, tensor in places:
            slots[name] = tensor


def _named(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def _replacement(name: str, tensor: Tensor) -> Tensor:
    """Return numbers for a tensor that depend on its name and shape only, on the CPU, float64 if they are floating.

    Matrices keep the scale of their input; buffers are positive, as variances are. Masks are a chequerboard, so that
    they hide some of each row, and tables of whole numbers are zeros: valid places in any other table.
    """
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point():
        is_mask = tensor.dtype == torch.bool or (tensor.numel() > 1 and tensor.min() == 0 and tensor.max() == 1)
        return _chequerboard(shape).to(tensor.dtype) if is_mask else torch.zeros(shape, dtype=tensor.dtype)
    columns = prod(shape[1:])
    overlaps = tensor.numel() > _BLOCK and len(shape) > 1
    values = _draw(name, shape, columns + _SHIFT * (shape[0] - 1) if overlaps else tensor.numel())
    if not isinstance(tensor, nn.Parameter):
        values += 0.5
    elif len(shape) == 0:
        values = 0.5 + values / 2
    elif len(shape) == 1:
        values = 2 * values - 1
    else:
        values = (2 * values - 1) * (3 / max(1, columns)) ** 0.5
    if not overlaps:
        return values.reshape(shape)
    # The rows overlap in memory, which is that of one row and a little.
    return values.as_strided(shape, (_SHIFT, *(prod(shape[axis + 1 :]) for axis in range(1, len(shape)))))


def _chequerboard(shape: tuple[int, ...]) -> Tensor:
    places = [torch.arange(length).reshape([-1] + [1] * (len(shape) - axis - 1)) for axis, length in enumerate(shape)]
    return (sum(places, torch.zeros(shape, dtype=torch.int64)) % 2).bool()


def _draw(name: str, shape: tuple[int, ...], count: int) -> Tensor:
    """Return numbers from 0 to 1, drawn on the CPU with a seed made from name and shape."""
    seed = int.from_bytes(hashlib.sha256(f"{name} {shape}".encode(errors="replace")).digest()[:6], "big")
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
