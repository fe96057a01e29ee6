"""A work step that trains nothing, in a module that the workers of every engine can import."""

from typing import Any

import torch

from kuber.entity.work.steps import TrainingResult
from kuber.learning.weights import Weights


def idle(weights: Weights, generator: torch.Tensor, *, progress: Any) -> TrainingResult:
    """Return other weights of the same size, with a random number that makes them unique."""
    draws = torch.Generator()
    draws.set_state(generator)
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    next(iter(changed.values())).reshape(-1)[0] = torch.rand(1, generator=draws)[0]
    return TrainingResult(weights=changed, generator=draws.get_state(), samples=1, forward=0, loss=0.0, seconds=0.0)
