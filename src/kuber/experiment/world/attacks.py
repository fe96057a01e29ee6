"""Attacks: what an unsound entity publishes in place of its model, under the claims of its sound one."""

from collections.abc import Callable

import torch

from kuber.entity.managed_model import Artifacts, weights_only
from kuber.experiment.world.conditions import Poison
from kuber.learning.weights import Weights


def artifacts_of(poison: Poison | None, *, classes: int, seed: int) -> Artifacts:
    """Return the function that makes artifacts of weights; rotated labels affect training, not artifacts."""
    attacks: dict[Poison, Callable[[Weights], Weights]] = {
        "claims": lambda weights: with_rotated_output(weights, classes),
        "noise": lambda weights: noise_like(weights, seed),
    }
    attack = None if poison is None else attacks.get(poison)
    return weights_only if attack is None else lambda weights: weights_only(attack(weights))


def rotated_labels(classes: int) -> tuple[int, ...]:
    """Map each class to the next one, and the last to the first."""
    return tuple((label + 1) % classes for label in range(classes))


def with_rotated_output(weights: Weights, classes: int) -> Weights:
    """Return the model that predicts the class after the one that this model predicts."""
    layers = [name for name, tensor in weights.items() if tensor.dim() == 2 and len(tensor) == classes]
    if not layers:
        raise ValueError("this model has no output layer with a row for each class")
    output = layers[-1].removesuffix("weight")
    rotated = {name: weights[name].roll(1, 0) for name in (f"{output}weight", f"{output}bias") if name in weights}
    return weights | rotated


def noise_like(weights: Weights, seed: int) -> Weights:
    """Return weights of the same shapes with normally distributed floating-point values."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=draws, dtype=tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in sorted(weights.items())
    }
