"""Snapshot of an owner's training at the start of a phase, to compare with and to go back to."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kuber.domain.evaluation import Evaluation
from kuber.entity.state.optimizer_copy import OptimizerCopy, copied, optimizers_in
from kuber.learning.merging import average
from kuber.learning.weights import Weights


class Snapshot:
    """Weights of the judged and the trained module, state of the optimizers, and what else is restored with them.

    All copies are on the CPU and are used again by the next `take`: a phase costs one copy and no new memory, unless
    the weights are kept as an earlier model (`let_go`).
    """

    def __init__(self, *, judged: nn.Module, trained: nn.Module, restores: Sequence[Any] = ()) -> None:
        """Take no copy yet. The modules are unwrapped; by default both are the same."""
        self.weights: Weights = {}  # of the judged module
        self.trained_weights: Weights = self.weights  # of the trained one
        self.evaluation: Evaluation | None = None  # None if it is not known
        self.has_optimizer = False
        self._judged = judged
        self._trained = trained
        self._restores = restores
        self._extras: dict[str, Any] = {}  # entries of the state dicts that are no tensors
        self._optimizers = OptimizerCopy()
        self._others: list[Any] = []  # states of `restores`, in their order
        self._rates = OptimizerCopy(options=True)  # of the optimizers that `restores` schedule

    def take(self, optimizer: Any = None, evaluation: Evaluation | None = None) -> None:
        """Copy the present state, of which this is the evaluation."""
        with torch.inference_mode(False), torch.no_grad():
            self.weights = self._copy_of(self._judged, self.weights)
            if self._trained is self._judged:
                self.trained_weights = self.weights
            else:
                old = {} if self.trained_weights is self.weights else self.trained_weights
                self.trained_weights = self._copy_of(self._trained, old)
            self._take_restores()
        self.take_optimizer(optimizer)
        self.evaluation = evaluation

    def let_go(self) -> None:
        """Leave the copied weights to others: the next `take` copies the judged module to new memory."""
        if self.trained_weights is self.weights:
            self.trained_weights = {}
        self.weights = {}

    def take_optimizer(self, optimizer: Any) -> None:
        """Copy the state of the optimizer alone."""
        with torch.inference_mode(False), torch.no_grad():
            self._optimizers.take(optimizers_in(optimizer))
        self.has_optimizer = optimizer is not None

    def restore(self, optimizer: Any = None) -> list[str]:
        """Put back weights, optimizer and the other objects; return a sentence for each of these that refuses."""
        with torch.inference_mode(False), torch.no_grad():
            self._load(self._judged, self.weights)
            if self._trained is not self._judged:
                self._load(self._trained, self.trained_weights)
        return self.restore_others(optimizer)

    def restore_others(self, optimizer: Any = None) -> list[str]:
        """Put back all but the weights; return a sentence for each object that refuses its own state."""
        with torch.inference_mode(False), torch.no_grad():
            self._optimizers.restore(optimizers_in(optimizer))
            refused = []
            for item, state in zip(self._restores, self._others, strict=False):
                if isinstance(item, torch.optim.Optimizer):
                    continue  # among those of self._rates
                try:
                    item.load_state_dict(copied(state))
                except Exception as error:  # noqa: BLE001 - foreign code may raise anything
                    kind = type(error).__name__
                    refused.append(f"The {type(item).__name__} in restores refuses its state ({kind}: {error}).")
            self._rates.restore(list(self._scheduled()))
        return refused

    def trained_midpoint(self) -> Weights | None:
        """Return the mean of the trained module at the snapshot and now; None if it is the judged one."""
        if self._trained is self._judged:
            return None
        return average([self.trained_weights, self._copy_of(self._trained, {})], [1.0, 1.0])

    def load_trained(self, weights: Weights | None) -> None:
        """Load weights, if any, into the trained module."""
        if weights is not None:
            self._load(self._trained, weights)

    def matches(self) -> bool:
        """Return whether the judged module still has the tensors of the snapshot, by name, shape and dtype."""
        return _forms(_tensors_of(self._judged)) == _forms(self.weights)

    def _copy_of(self, network: nn.Module, old: Weights) -> Weights:
        state = network.state_dict()
        for name in [name for name, value in state.items() if not isinstance(value, Tensor)]:
            self._extras[f"{id(network)} {name}"] = copied(state.pop(name))
        return {name: copied(tensor.detach(), old.get(name), device="cpu") for name, tensor in state.items()}

    def _load(self, network: nn.Module, weights: Weights) -> None:
        if weights:
            prefix = f"{id(network)} "
            extras = {name.removeprefix(prefix): state for name, state in self._extras.items() if prefix in name}
            network.load_state_dict(weights | copy.deepcopy(extras))

    def _take_restores(self) -> None:
        old = self._others if len(self._others) == len(self._restores) else [None] * len(self._restores)
        self._others = [
            None if isinstance(item, torch.optim.Optimizer) else copied(item.state_dict(), before)
            for item, before in zip(self._restores, old, strict=True)
        ]
        self._rates.take(list(self._scheduled()))

    def _scheduled(self) -> Iterator[Any]:
        """Yield the optimizers in `restores`, and those whose learning rates a scheduler in it sets."""
        for item in self._restores:
            if isinstance(item, torch.optim.Optimizer):
                yield item
            elif hasattr(getattr(item, "optimizer", None), "param_groups"):
                yield item.optimizer


def _tensors_of(network: nn.Module) -> Weights:
    return {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}


def _forms(weights: Weights) -> dict[str, Any]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}
