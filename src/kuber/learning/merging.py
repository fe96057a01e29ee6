"""Merging models of one architecture by averaging their weights."""

from collections.abc import Sequence

import torch

from kuber.learning.weights import Weights


def average(models: Sequence[Weights], sizes: Sequence[float]) -> Weights:
    """The mean of the models, each weighted by its size: McMahan et al., arXiv 1602.05629, algorithm 1.

    Buffers, as BatchNorm's running statistics, are averaged too; whole numbers are rounded. It is computed as the
    first model and the weighted differences to it, in float64, so equal models come out bit for bit as they were.
    """
    first, total = models[0], sum(sizes)
    merged: Weights = {}
    for name, tensor in first.items():
        base = tensor.double()
        change, difference = torch.zeros_like(base), torch.empty_like(base)
        for model, size in zip(models[1:], sizes[1:], strict=True):
            change += torch.sub(model[name], base, out=difference).mul_(size / total)
        mean = torch.where(change == 0, base, base + change)  # -0.0 + 0.0 would be 0.0
        merged[name] = (mean if tensor.is_floating_point() else mean.round()).to(tensor.dtype)
    return merged


def merge(models: Sequence[Weights], sizes: Sequence[float]) -> Weights:
    """`average`, with BatchNorm's running statistics pooled: those of all the models' samples together.

    The pooled variance is the mean of the variances and, besides, the variance of the means: what one network would
    have measured on a mixture of the models' data in these proportions. Equal models come out bit for bit.
    """
    merged = average(models, sizes)
    total = sum(sizes)
    for name, tensor in merged.items():
        if not name.endswith("running_var"):
            continue
        of_mean = name.removesuffix("running_var") + "running_mean"
        middle = merged[of_mean].double()
        spread = torch.zeros_like(middle)
        for model, size in zip(models, sizes, strict=True):
            spread += (model[of_mean].double() - middle) ** 2 * (size / total)
        merged[name] = torch.where(spread == 0, tensor, (tensor.double() + spread).to(tensor.dtype))
    return merged
