"""The outer step: a next start beyond an average of weights, with momentum over rounds; FedAvg's server momentum."""

from typing import NamedTuple

import torch
from torch import Tensor

from kuber.learning.merging import is_averaged
from kuber.learning.weights import Weights

_STATISTICS = ("running_mean", "running_var")  # of BatchNorm: measured, not trained


class OuterStep(NamedTuple):
    """The start of the next local phase, and the momentum."""

    start: Weights
    momentum: Weights


def outer_step(start: Weights, average: Weights, momentum: Weights | None, *, rate: float, decay: float) -> OuterStep:
    """Step from where a phase started, along the change that the average of several models makes to it.

    The change is a pseudo-gradient: `start - average`. Nesterov's momentum m becomes `decay * m + (start - average)`,
    and the next start is `start - rate * (start - average + decay * m)`. With rate 1 and decay 0 it is the average.
    Momentum that points against the change is dropped: others are late, few, or have moved elsewhere. Douillard et
    al., arXiv 2311.08105, algorithm 1; Hsu et al., arXiv 1909.06335.

    Only trained tensors step. Running statistics, counters and what cannot be averaged are those of the average: a
    variance stepped beyond would be negative. Raises KeyError when the models have different tensors.
    """
    changes = trained_change(start, average)
    if momentum is not None and _product(momentum, changes) < 0:
        momentum = None
    stepped, kept = dict(average), {}
    for name, change in changes.items():
        total = change if momentum is None else decay * momentum[name].double() + change
        stepped[name] = _moved(average[name], (rate - 1) * change + rate * decay * total)
        kept[name] = total.to(average[name].dtype)
    return OuterStep(start=stepped, momentum=kept)


def server_step(start: Weights, average: Weights, momentum: Weights | None, *, decay: float) -> OuterStep:
    """Step from a global model by FedAvg's server momentum, with a server learning rate of 1.

    The momentum v becomes `decay * v + (start - average)`, and the next global model is `start - v`: the average,
    less `decay` times the v before. Hsu et al., arXiv 1909.06335. Only trained tensors step, as in `outer_step`.
    """
    stepped, kept = dict(average), {}
    for name, change in trained_change(start, average).items():
        earlier = torch.zeros_like(change) if momentum is None else decay * momentum[name].double()
        stepped[name] = _moved(average[name], earlier)
        kept[name] = (earlier + change).to(average[name].dtype)
    return OuterStep(start=stepped, momentum=kept)


def trained_change(start: Weights, end: Weights) -> Weights:
    """Return `start - end` of the trained tensors, in float64. Raises KeyError when the start lacks one."""
    names = [name for name, tensor in end.items() if tensor.is_floating_point() and _is_trained(name, end)]
    return {name: start[name].double() - end[name].double() for name in names}


def _product(momentum: Weights, changes: Weights) -> float:
    return sum(float((momentum[name].double() * change).sum()) for name, change in changes.items())


def _moved(average: Tensor, beyond: Tensor) -> Tensor:
    """Return the average less a step in float64; bit for bit the average where the step is 0."""
    return torch.where(beyond == 0, average.double(), average.double() - beyond).to(average.dtype)


def _is_trained(name: str, weights: Weights) -> bool:
    return is_averaged(weights[name]) and not name.endswith(_STATISTICS)
