"""Where a phase of an own loop began: what it can be compared with, and gone back to."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from kuber.domain.evaluation import Evaluation
from kuber.learning.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A model, what it was worth where that is known, and the state of its optimizer where there was one."""

    weights: Weights
    evaluation: Evaluation | None = None
    optimizer: Any = None


def copy_optimizer_state(optimizer: Optimizer | None) -> Any:
    """A copy of an optimizer's state; None without one."""
    return None if optimizer is None else _copied(optimizer.state_dict())


def restore_optimizer(optimizer: Optimizer | None, remembered: Any) -> None:
    """Give an optimizer the state it had; none, where it had not been seen before."""
    if optimizer is None:
        return
    if remembered is None:
        remembered = {"state": {}, "param_groups": optimizer.state_dict()["param_groups"]}
    optimizer.load_state_dict(_copied(remembered))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
