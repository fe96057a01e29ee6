"""Near copies: models that are another one with a little noise, published to take its place several times."""

from math import sqrt

import torch

from kuber.learning.weights import Weights

NEAR = 0.1  # of the distance to the own model; models of different data are about as far from each other as from it
EQUAL = 1e-3  # of the norm, where the own model is of other tensors


def is_near_copy(model: Weights, other: Weights, own: Weights) -> bool:
    """Return whether two models differ by a small part of that by which they differ from the own one.

    Models of different tensors do not. Where the own model has other tensors, the norm is the measure.
    """
    between = _distance(model, other)
    if between is None:
        return False
    apart = [_distance(model, own), _distance(other, own)]
    if apart[0] is None or apart[1] is None or not min(apart[0], apart[1]):
        norm = _distance(model, {name: torch.zeros_like(tensor) for name, tensor in model.items()})
        return norm is not None and between <= EQUAL * norm
    return between < NEAR * min(apart[0], apart[1])


def _distance(model: Weights, other: Weights) -> float | None:
    """Return the Euclidean distance of the floating-point tensors; None for models of different tensors."""
    if not model or model.keys() != other.keys():
        return None
    total = 0.0
    for name, tensor in model.items():
        if tensor.shape != other[name].shape or tensor.layout != torch.strided:
            return None
        if tensor.is_floating_point() and tensor.element_size() > 1:
            total += float((tensor.double() - other[name].double()).square().sum())
    return sqrt(total)
