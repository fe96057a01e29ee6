"""The best model of an owner's training by his own validation: of the last one, an earlier one, and an average."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count

from torch import Tensor, nn

from kuber.domain.deployment import AVERAGED, Choice, Deployed, deploy
from kuber.domain.evaluation import Evaluation
from kuber.learning.merging import merge
from kuber.learning.weights import Weights, load_weights, swapped_weights

Undisturbed = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BestModel:
    """A model that an owner would use: `entity.best`. Its weights are those of the judged module, on the CPU."""

    choice: Choice  # "last", "best" (of an earlier phase) or "average"
    evaluation: Evaluation  # on the data that decisions are made on
    weights: Weights = field(repr=False)
    _module: nn.Module = field(repr=False)
    _undisturbed: Undisturbed = field(repr=False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the weights, by the names of the judged module without wrappers."""
        return {name: tensor.clone() for name, tensor in self.weights.items()}

    @contextmanager
    def used(self) -> Iterator[nn.Module]:
        """Yield the judged module with these weights, in evaluation mode; then all is as it was, to train on."""
        with self._undisturbed(), swapped_weights(self._module, self.weights):
            self._module.eval()
            yield self._module

    def load(self) -> None:
        """Put these weights into the judged module for good. The optimizer keeps its own state."""
        load_weights(self._module, self.weights)


@dataclass(frozen=True, slots=True)
class _Kept:
    deployed: Deployed
    weights: Weights


class EarlierModels:
    """Copies of the models at earlier ends of phases: the best one, and the last few, to average."""

    def __init__(self, *, keeps: bool) -> None:
        """Without `keeps` none is kept."""
        self._keeps = keeps
        self._numbers = count(1)
        self._recent: deque[_Kept] = deque(maxlen=AVERAGED - 1)
        self._best: _Kept | None = None

    def add(self, weights: Weights, evaluation: Evaluation) -> bool:
        """Take over a model that is no longer the last, if models are kept; return whether they are."""
        if not self._keeps or not weights:
            return False
        if self._recent and _shapes(self._recent[-1].weights) != _shapes(weights):
            self.clear()
        kept = _Kept(Deployed(round=next(self._numbers), evaluation=evaluation), weights)
        self._recent.append(kept)
        before = None if self._best is None else self._best.deployed
        if deploy(before, kept.deployed, None) is kept.deployed:
            self._best = kept
        return True

    def clear(self) -> None:
        """Forget all models, as when another one has other tensors."""
        self._recent.clear()
        self._best = None

    def choose(
        self, weights: Weights, evaluation: Evaluation, judge: Callable[[Weights], Evaluation | None]
    ) -> tuple[Choice, Evaluation, Weights]:
        """Choose among the last model, the best of earlier ones, and the average, unless it cannot be judged."""
        if not self._keeps:  # the copy of the last model is used again for the next one
            return "last", evaluation, {name: tensor.clone() for name, tensor in weights.items()}
        if self._recent and _shapes(self._recent[-1].weights) != _shapes(weights):
            self.clear()
        last = Deployed(round=next(self._numbers), evaluation=evaluation)
        models = {id(last): weights}
        candidate = None
        if self._recent:
            mean = merge(
                [weights, *(kept.weights for kept in reversed(self._recent))], [1.0] * (1 + len(self._recent))
            )
            judged = judge(mean)
            if judged is not None:
                candidate = Deployed(round=last.round, evaluation=judged, averaged=True)
                models[id(candidate)] = mean
        before = None
        if self._best is not None:
            before = self._best.deployed
            models[id(before)] = self._best.weights
        chosen = deploy(before, last, candidate)
        return chosen.choice(last.round), chosen.evaluation, models[id(chosen)]


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
