"""Check whether a model still consists of finite numbers, in one pass over its tensors."""

from collections import defaultdict

import torch
from torch import Tensor, nn


class FiniteCheck:
    """Finds tensors of modules that hold NaN or infinite numbers, other than those that did so at the beginning."""

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = {id(module): module for module in modules}.values()
        self._allowed: set[str] = set()
        self._allowed = {name for name, tensor in self._tensors() if not _is_finite(tensor)}  # such as masks of -inf

    def first_fault(self) -> str | None:
        """Return the name of a tensor that is not finite; None if all are."""
        by_kind: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = defaultdict(list)
        for name, tensor in self._tensors():
            by_kind[tensor.device, tensor.dtype].append((name, tensor))
        for pairs in by_kind.values():
            if not _are_finite([tensor for _, tensor in pairs]):
                found = next((name for name, tensor in pairs if not _is_finite(tensor)), None)
                if found is not None:
                    return found
        return None

    def _tensors(self) -> list[tuple[str, Tensor]]:
        pairs = [pair for module in self._modules for pair in (*module.named_parameters(), *module.named_buffers())]
        return [
            (name, tensor.detach())
            for name, tensor in pairs
            if name not in self._allowed
            and (tensor.is_floating_point() or tensor.is_complex())
            and tensor.layout == torch.strided
            and not tensor.is_meta
            and tensor.numel() > 0
        ]


def _are_finite(tensors: list[Tensor]) -> bool:
    try:
        norms = torch._foreach_norm(tensors, float("inf"))  # not of order 2, which overflows
        return bool(torch.isfinite(torch.stack(list(norms))).all())
    except (RuntimeError, NotImplementedError, TypeError):  # dtypes that have no norm
        return all(map(_is_finite, tensors))


def _is_finite(tensor: Tensor) -> bool:
    if tensor.element_size() == 1:  # float8: no arithmetic on most devices
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())
