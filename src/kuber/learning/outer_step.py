"""The outer step: a next start beyond an average of weights, with momentum over rounds."""

from typing import NamedTuple

import torch

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
    names = [name for name, tensor in average.items() if tensor.is_floating_point() and _is_trained(name, average)]
    changes = {name: start[name].double() - average[name].double() for name in names}
    if momentum is not None and sum(float((momentum[name].double() * changes[name]).sum()) for name in names) < 0:
        momentum = None
    stepped, kept = dict(average), {}
    for name, change in changes.items():
        total = change if momentum is None else decay * momentum[name].double() + change
        beyond = (rate - 1) * change + rate * decay * total
        moved = torch.where(beyond == 0, average[name].double(), average[name].double() - beyond)
        stepped[name] = moved.to(average[name].dtype)
        kept[name] = total.to(average[name].dtype)
    return OuterStep(start=stepped, momentum=kept)


def _is_trained(name: str, weights: Weights) -> bool:
    return is_averaged(weights[name]) and not name.endswith(_STATISTICS)
