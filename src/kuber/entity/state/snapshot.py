"""Snapshots of a model and its optimizer, to compare with and to restore."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from kuber.domain.evaluation import Evaluation
from kuber.learning.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A model at one time: its weights, its evaluation if it is known, and its optimizer's state if there was one."""

    weights: Weights
    evaluation: Evaluation | None = None
    optimizer: Any = None  # as of `copy_optimizer_state`


def copy_optimizer_state(optimizer: Optimizer | None) -> Any:
    """Return a copy of an optimizer's state; None without an optimizer."""
    return None if optimizer is None else _copy(optimizer.state_dict())


def restore_optimizer(optimizer: Optimizer | None, state: Any) -> None:
    """Restore a copied state; None resets the optimizer to the state of a new one."""
    if optimizer is None:
        return
    if state is None:
        state = {"state": {}, "param_groups": optimizer.state_dict()["param_groups"]}
    optimizer.load_state_dict(_copy(state))


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
