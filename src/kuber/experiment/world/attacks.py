"""What an unsound entity of a simulation publishes in place of its model, under the claims of the sound one."""

from collections.abc import Callable

import torch

from kuber.entity.hub.publisher import Forms, as_weights
from kuber.experiment.world.conditions import Poison
from kuber.learning.weights import Weights


def forms_of(poison: Poison | None, *, classes: int, seed: int) -> Forms:
    """What is made of weights that are to be published; of turned labels nothing more, as training has seen them."""
    spoilt: dict[Poison, Callable[[Weights], Weights]] = {
        "claims": lambda weights: with_turned_output(weights, classes),
        "noise": lambda weights: noise_like(weights, seed),
    }
    spoil = None if poison is None else spoilt.get(poison)
    return as_weights if spoil is None else lambda weights: as_weights(spoil(weights))


def turned_labels(classes: int) -> tuple[int, ...]:
    """Each class told as the next one, the last as the first."""
    return tuple((label + 1) % classes for label in range(classes))


def with_turned_output(weights: Weights, classes: int) -> Weights:
    """The model that answers the next class wherever this one answers a class."""
    layers = [name for name, tensor in weights.items() if tensor.dim() == 2 and len(tensor) == classes]
    if not layers:
        raise ValueError("this model has no output layer of a row for each class")
    output = layers[-1].removesuffix("weight")
    turned = {name: weights[name].roll(1, 0) for name in (f"{output}weight", f"{output}bias") if name in weights}
    return weights | turned


def noise_like(weights: Weights, seed: int) -> Weights:
    """A model of the same shapes whose floating-point values are drawn from a normal distribution."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=draws, dtype=tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in sorted(weights.items())
    }
