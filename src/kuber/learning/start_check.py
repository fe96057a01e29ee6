"""Check of weights that another entity offers as a start: whether a model can learn from them."""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = 10.0  # by which the root mean square of a tensor may differ from that of the own start
FEW = 32  # values from which on it is a measure of scale
STATISTICS = ("running_mean", "running_var")  # of inputs and activations: they have any scale, and follow the data


def start_fault(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Return why nothing can be learned from these weights, in words that name a tensor; None if all are sound.

    They are compared with the start that the entity made itself, of the same tensors: a sound one has numbers of
    about the same scale, and is constant only where that one is, such as the factors of a normalisation.
    """
    for name, ours in own.items():
        if ours.is_floating_point() and ours.numel() and not name.endswith(STATISTICS):
            fault = _fault(weights[name].float(), ours.float())
            if fault is not None:
                return f"its tensor {name} {fault}"
    return None


def _fault(theirs: Tensor, ours: Tensor) -> str | None:
    if not torch.isfinite(theirs).all():
        return "has numbers that are not finite"
    if _is_constant(ours):
        constant = ours.flatten()[0]
        margin = max(1.0, abs(float(constant)))
        if _is_constant(theirs) and abs(float(theirs.flatten()[0] - constant)) > margin / 2:
            return "has another constant than a new model"
        return f"is {SCALE:g} times too large" if _size(theirs - constant) > SCALE * margin else None
    if _is_constant(theirs):
        return "is constant"
    ratio = _size(theirs) / _size(ours)
    if ratio > SCALE and _size(theirs) > 1:
        return f"is {ratio:.0f} times as large as in a new model"
    if ratio < 1 / SCALE and ours.numel() >= FEW:
        return f"is {1 / ratio:.0f} times smaller than in a new model"
    return None


def _is_constant(tensor: Tensor) -> bool:
    return bool(tensor.min() == tensor.max())


def _size(tensor: Tensor) -> float:
    """Return the root mean square."""
    return float(tensor.square().mean().sqrt())
