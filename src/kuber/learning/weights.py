"""Weights as safetensors bytes and back; nothing is unpickled."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from kuber.domain.knowledge import Architecture, TensorSpec
from kuber.domain.safetensors_header import PREFIX_LENGTH, bfloat16_manifest, header_length, read_manifest
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, first_line
from kuber.learning.wrappers import plain_name

Weights = dict[str, Tensor]  # a state_dict on the CPU: parameters and buffers

DTYPE_NAMES = {  # of all dtypes in kuber.domain.tensor_dtypes
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float64: "F64",
}


def weights_of(network: nn.Module) -> Weights:
    """Return a copy of the network's `state_tensors` on the CPU, contiguous in memory."""
    return {name: _copied(tensor) for name, tensor in state_tensors(network).items()}


def state_tensors(network: nn.Module) -> Weights:
    """Return the tensors of the network's state dict, not copied, named as without `torch.compile` inside it.

    An extra state that is no tensor is left out.
    """
    return {plain_name(name): value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the network; an extra state that is no tensor stays.

    Raises IncompatibleKnowledgeError when they are not those of this network.
    """
    own = network.state_dict()
    _check_same_tensors(state_tensors(network), weights)
    state = {name: weights[plain_name(name)] if isinstance(value, Tensor) else value for name, value in own.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise IncompatibleKnowledgeError(f"The weights are not those of this network: {first_line(error)}.") from None


def _copied(tensor: Tensor) -> Tensor:
    copied = tensor.detach().to("cpu", copy=True)
    return copied.contiguous() if copied.layout == torch.strided else copied


@contextmanager
def swapped_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Run the network with other weights inside the `with` block; they are exchanged by pointer, not copied.

    Parameters keep their identity, gradients and optimizer, and what a backward pass saved keeps its values. The
    network's own weights are back at the end, also on an exception. Run it in `evaluation_mode` inside, not around:
    a forward pass that changes buffers then leaves `weights` as they are. Raises IncompatibleKnowledgeError when the
    weights are not those of this network.
    """
    state = state_tensors(network)
    tensors = *network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)
    own = {plain_name(name): tensor for name, tensor in tensors}
    _check_same_tensors(state, weights)
    # A module may transform its tensors in state_dict: then only load_state_dict knows the way back.
    plain = all(name in own and own[name].data_ptr() == tensor.data_ptr() for name, tensor in state.items())
    if not plain:
        before = weights_of(network)
        try:
            load_weights(network, weights)
            yield
        finally:
            load_weights(network, before)
        return
    originals: list[tuple[Tensor, Tensor]] = []
    try:
        for name, tensor in weights.items():
            originals.append((own[name], own[name].data))
            own[name].data = tensor.detach().to(device=own[name].device, dtype=own[name].dtype)
        yield
    finally:
        for parameter, data in reversed(originals):  # tied tensors occur twice
            parameter.data = data


def _check_same_tensors(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    unlike = sorted(state.keys() ^ weights.keys()) or [
        name for name, tensor in state.items() if tensor.shape != weights[name].shape
    ]
    if unlike:
        raise IncompatibleKnowledgeError(f"The weights are not those of this network: {unlike[0]} differs.")


def manifest_of(weights: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Return the dtype and shape of every tensor, by name. `kuber.learning.weight_checks` says which have one."""
    return {
        name: TensorSpec(dtype=DTYPE_NAMES[tensor.dtype], shape=tuple(tensor.shape))
        for name, tensor in weights.items()
    }


def dump(weights: Weights) -> bytes:
    """Return the weights as a safetensors file; equal weights give equal bytes."""
    return bytes(safetensors.save({name: weights[name].contiguous() for name in sorted(weights)}))


def load(data: bytes, architecture: Architecture) -> Weights:
    """Return the weights in a safetensors file, checked to be those of this architecture; bfloat16 becomes float32.

    The header is checked before a tensor is allocated. Raises CorruptKnowledgeError when the file is malformed or
    holds a value that is not finite, IncompatibleKnowledgeError when its tensors are not those of the architecture.
    """
    try:
        header = data[PREFIX_LENGTH : PREFIX_LENGTH + header_length(data)]
        manifest = read_manifest(header, size=len(data))
    except ValueError as error:
        raise CorruptKnowledgeError(f"The weights are not a valid safetensors file: {error}.") from None
    expected = dict(architecture.manifest)
    if manifest not in (expected, bfloat16_manifest(expected)):
        raise IncompatibleKnowledgeError(f"The weights are not those of {architecture.name}: their tensors differ.")
    try:
        weights: Weights = safetensors.load(data)
    except SafetensorError as error:
        raise CorruptKnowledgeError(f"The weights are not a valid safetensors file: {error}.") from None
    if manifest_of(weights) != manifest:  # two parsers read the header and have to agree
        raise CorruptKnowledgeError("The header of the weights is ambiguous; do not use them.")
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CorruptKnowledgeError(f"The weights have a value that is not finite, in {name}; do not use them.")
        if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
            raise CorruptKnowledgeError(f"The weights have a boolean that is neither 0 nor 1, in {name}.")
    return weights if manifest == expected else to_float32(weights)


def to_bfloat16(weights: Weights) -> Weights:
    """Return the weights with bfloat16 in place of float32: half the bytes, and 8 bits of mantissa."""
    return _cast(weights, torch.float32, torch.bfloat16)


def to_float32(weights: Weights) -> Weights:
    """Return the weights with float32 in place of bfloat16."""
    return _cast(weights, torch.bfloat16, torch.float32)


def _cast(weights: Weights, before: torch.dtype, after: torch.dtype) -> Weights:
    return {name: tensor.to(after) if tensor.dtype == before else tensor for name, tensor in weights.items()}
