"""The gate: whether a strategy keeps a model that absorbed knowledge, and how much guidance the next phase gets."""

import inspect
from typing import NamedTuple

from kuber.domain.acceptance import AcceptancePolicy, ClassFall, fallen_classes
from kuber.domain.evaluation import Evaluation
from kuber.domain.strategy import Strategy
from kuber.entity.evaluator import ModelPort

LEAST_GUIDANCE = 1 / 2  # share of its weight that guidance keeps after any number of harmful phases


class GateVerdict(NamedTuple):
    """Whether a model is kept, and the classes that fell too far."""

    kept: bool
    fallen: tuple[ClassFall, ...] = ()


class Gate:
    """Judges models as the entity's strategy decides; the same for models that KUber trains and for owners'."""

    def __init__(self, strategy: Strategy, model: ModelPort) -> None:
        self._strategy = strategy
        self._model = model
        self._takes_counts = _takes(strategy, "class_counts")

    def judge(self, before: Evaluation, after: Evaluation) -> GateVerdict:
        """Return the strategy's verdict on a model, compared with the one before it."""
        if self._takes_counts:
            kept = self._strategy.keep(before, after, class_counts=self._model.class_counts)
        else:  # a strategy of an earlier version
            kept = self._strategy.keep(before, after)
        return GateVerdict(kept, self._fallen(before, after))

    def _fallen(self, before: Evaluation, after: Evaluation) -> tuple[ClassFall, ...]:
        policy = getattr(self._strategy, "acceptance", None)
        return fallen_classes(before, after, policy) if isinstance(policy, AcceptancePolicy) else ()


def next_guidance(guidance: float, *, harmless: bool) -> float:
    """Return the share of its weight that guidance has in the next phase: half after harm, else up to twice.

    When less guidance has done harm too, the harm comes from elsewhere, such as few samples of a class, which guides
    may mend: then it is whole again.
    """
    if harmless or guidance <= LEAST_GUIDANCE:
        return min(1.0, 2 * guidance)
    return guidance / 2


def _takes(strategy: Strategy, name: str) -> bool:
    """Return whether the strategy's `keep` takes this argument."""
    try:
        parameters = inspect.signature(strategy.keep).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(each.name == name or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
