"""Check whether a model and its optimizer still consist of finite numbers, in one pass over the tensors."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


class FiniteCheck:
    """Finds tensors of modules that hold NaN or infinite numbers, other than those that did so at the beginning."""

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = {id(module): module for module in modules}.values()
        self._allowed: set[str] = set()
        self._allowed = {name for name, tensor in self._tensors() if not _is_finite(tensor)}  # such as masks of -inf

    def first_fault(self) -> str | None:
        """Return the name of a tensor that is not finite; None if all are."""
        pairs = self._tensors()
        if _are_finite([tensor for _, tensor in pairs]):
            return None
        return next((name for name, tensor in pairs if not _is_finite(tensor)), None)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [pair for module in self._modules for pair in (*module.named_parameters(), *module.named_buffers())]
        return [
            (name, tensor.detach()) for name, tensor in pairs if name not in self._allowed and _holds_numbers(tensor)
        ]


def has_finite_state(optimizer: Any) -> bool:
    """Return whether all that an optimizer keeps for its parameters is finite."""
    states = [state for state in optimizer.state.values() if isinstance(state, Mapping)]
    values = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return _are_finite([tensor.detach() for tensor in values if _holds_numbers(tensor)])


def _holds_numbers(tensor: Tensor) -> bool:
    numbers = not is_lazy(tensor) and (tensor.is_floating_point() or tensor.is_complex())
    return numbers and tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0


def _are_finite(tensors: list[Tensor]) -> bool:
    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        by_kind[tensor.device, tensor.dtype].append(tensor)
    return all(map(_have_finite_norms, by_kind.values()))


def _have_finite_norms(tensors: list[Tensor]) -> bool:
    try:
        norms = torch._foreach_norm(tensors, float("inf"))  # not of order 2, which overflows
        return bool(torch.isfinite(torch.stack(list(norms))).all())
    except (RuntimeError, NotImplementedError, TypeError):  # dtypes that have no norm
        return all(map(_is_finite, tensors))


def _is_finite(tensor: Tensor) -> bool:
    if tensor.element_size() == 1:  # float8: no arithmetic on most devices
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())
