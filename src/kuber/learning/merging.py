"""Merging models of one architecture by averaging their weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kuber.learning.weights import Weights


def average(models: Sequence[Weights], sizes: Sequence[float]) -> Weights:
    """Return the mean of the models, each weighted by its size: McMahan et al., arXiv 1602.05629, algorithm 1.

    Buffers, such as BatchNorm's running statistics, are averaged too, and counters (a single whole number), which are
    rounded. Masks, tables of whole numbers and values that are not finite are those of the first model. The mean is
    computed in float64 as the first model plus weighted differences to it, so the mean of equal models equals them
    bit for bit.
    """
    first, total = models[0], sum(sizes)
    merged: Weights = {}
    for name, tensor in first.items():
        if not is_averaged(tensor):
            merged[name] = tensor
            continue
        base = tensor.double()
        change, difference = torch.zeros_like(base), torch.empty_like(base)
        for model, size in zip(models[1:], sizes[1:], strict=True):
            change += torch.sub(model[name], base, out=difference).mul_(size / total)
        # -0.0 + 0.0 would be 0.0, and the difference of two infinities is no number.
        mean = torch.where((change == 0) | ~torch.isfinite(base), base, base + change)
        merged[name] = (mean if tensor.is_floating_point() else mean.round()).to(tensor.dtype)
    return merged


def merge(models: Sequence[Weights], sizes: Sequence[float]) -> Weights:
    """Return the `average`, with BatchNorm's running statistics pooled over the samples of all models.

    The pooled variance is the mean of the variances plus the variance of the means, as one network would measure it
    on a mixture of the models' data in these proportions. The merge of equal models equals them bit for bit.
    """
    merged = average(models, sizes)
    total = sum(sizes)
    for name, tensor in merged.items():
        mean_name = name.removesuffix("running_var") + "running_mean"
        if not name.endswith("running_var") or mean_name not in merged:
            continue
        pooled_mean = merged[mean_name].double()
        spread = torch.zeros_like(pooled_mean)
        for model, size in zip(models, sizes, strict=True):
            spread += (model[mean_name].double() - pooled_mean) ** 2 * (size / total)
        merged[name] = torch.where(spread == 0, tensor, (tensor.double() + spread).to(tensor.dtype))
    return merged


def is_averaged(tensor: Tensor) -> bool:
    """Return whether a tensor has a mean with others of its dtype: floats of 16 bits and more, and counters."""
    if tensor.layout != torch.strided:
        return False
    if tensor.is_floating_point():
        return tensor.element_size() > 1
    return tensor.dim() == 0 and tensor.dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
