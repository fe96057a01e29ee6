"""Check of a network's tensors before the first publication: whether hubs take them as weights."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kuber.domain.safetensors_header import HEADER_LIMIT
from kuber.domain.tensor_dtypes import MAX_DIMENSIONS, MAX_TENSORS, name_fault
from kuber.errors import SettingsError
from kuber.learning.weights import DTYPE_NAMES
from kuber.learning.wrappers import plain_name


def check_initialised(network: nn.Module) -> None:
    """Raise SettingsError unless every tensor holds numbers, and every parameter finite ones."""
    for name, tensor in _tensors(network):
        if is_lazy(tensor):
            raise SettingsError(
                f"The parameter {name} of the model has no shape yet; run one batch through the model first."
            )
        if tensor.is_meta:
            raise SettingsError(f"The tensor {name} of the model is on the meta device; load its numbers first.")
    for name, parameter in network.named_parameters():
        if _has_infinite(parameter):
            raise SettingsError(
                f"The parameter {name} of the model holds a number that is not finite; start from a sound model."
            )


def obstacle(network: nn.Module) -> str | None:
    """Return why the network's tensors cannot be published as weights, in words that name one; None if they can."""
    return obstacle_of({plain_name(name): value for name, value in network.state_dict().items()})


def obstacle_of(state: Mapping[str, Any]) -> str | None:
    """Return why a state dict cannot be published as weights, as `obstacle` does."""
    for name, tensor in state.items():
        reason = _fault(name, tensor)
        if reason is not None:
            return reason
    if len(state) > MAX_TENSORS:
        return f"it has {len(state)} tensors, and hubs take at most {MAX_TENSORS}"
    if _longest_header(state) > HEADER_LIMIT:
        return f"the names and shapes of its {len(state)} tensors exceed the {HEADER_LIMIT} bytes that hubs take"
    return None


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _fault(name: str, tensor: object) -> str | None:
    """Return why a hub would refuse one entry of a state dict; None if it takes it."""
    what = f"the tensor {name[:100]}"
    if not isinstance(tensor, Tensor):
        if name.endswith("_extra_state"):
            return f"the extra state {name[:100]} is no tensor"
        return f"the entry {name[:100]} of its state dict is no tensor"
    unusual = name_fault(name)
    if unusual is not None:
        return f"of {what}, {unusual}"
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or not _has_memory(tensor):
        return f"{what} is sparse, nested, quantised or of a class of its own"
    if tensor.dtype not in DTYPE_NAMES:
        return f"{what} is {str(tensor.dtype).removeprefix('torch.')}, which does not travel"
    if tensor.dim() > MAX_DIMENSIONS:
        return f"{what} has {tensor.dim()} dimensions, and hubs take at most {MAX_DIMENSIONS}"
    if _has_infinite(tensor):
        return f"{what} holds numbers that are not finite; a mask need not travel: register it with persistent=False"
    return None


def _longest_header(state: Mapping[str, Tensor]) -> int:
    """Return a length in bytes that the header of a safetensors file of these tensors does not exceed."""
    end = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    entries = {
        name: {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end]}
        for name, tensor in state.items()
    }
    return len(json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()) + 7  # blanks at its end


def _has_memory(tensor: Tensor) -> bool:
    """Return whether the tensor's numbers are in plain memory, and not within other tensors that it wraps."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def _has_infinite(tensor: Tensor) -> bool:
    floats = tensor.is_floating_point() and tensor.element_size() > 1 and tensor.layout == torch.strided
    return floats and not bool(torch.isfinite(tensor.detach()).all())
