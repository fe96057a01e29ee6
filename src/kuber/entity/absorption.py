"""Absorb knowledge: guided by it, distilled or merged; and keep the result, half of it, or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.explanation import explanation
from kuber.domain.strategy import Candidate, Choice, Strategy
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.discovery import PulledCandidate
from kuber.entity.state.checkpoint import Absorption
from kuber.entity.state.journal import Journal
from kuber.entity.work.steps import TrainingResult
from kuber.entity.work.weight_store import WeightStore
from kuber.learning.merging import average, merge
from kuber.learning.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The model after an absorption, and the absorption to record."""

    weights: Weights
    evaluation: Evaluation
    absorption: Absorption
    generator: Tensor | None = None  # its state after epochs of its own


class Absorber:
    """Turns candidates into outcomes, as a strategy decides."""

    def __init__(self, strategy: Strategy, evaluator: Evaluator, journal: Journal, weights: WeightStore) -> None:
        self._strategy = strategy
        self._evaluator = evaluator
        self._journal = journal
        self._weights = weights

    def keep_or_revert(
        self, *, start: Weights, before: Evaluation, weights: Weights, after: Evaluation
    ) -> tuple[Weights, Evaluation, bool]:
        """Return the new weights if the strategy keeps them; else the midpoint to them; else those of the start.

        The last value is whether anything new is kept.
        """
        if self._strategy.keep(before, after):
            return weights, after, True
        halfway = self._weights.keep(average([start, weights], [1.0, 1.0]))
        evaluation = self._evaluator.own(halfway, stage="halfway")
        if self._strategy.keep(before, evaluation):
            return halfway, evaluation, True
        return start, before, False

    def absorb_guided(
        self,
        choice: Choice,
        teachers: Sequence[Candidate],
        *,
        start: Weights,
        before: Evaluation,
        weights: Weights,
        after: Evaluation,
    ) -> Outcome:
        """Return the outcome of a local phase from `start` to `weights` with these teachers."""
        weights, evaluation, kept = self.keep_or_revert(start=start, before=before, weights=weights, after=after)
        choice = replace(choice, absorbed=teachers)
        absorption = self._absorption(choice, before=before, after=evaluation if kept else after, kept=kept)
        return Outcome(weights=weights, evaluation=evaluation, absorption=absorption)

    def absorb_distilled(self, choice: Choice, teacher: Candidate, result: TrainingResult) -> Outcome:
        """Return the outcome of distilling a teacher in epochs of its own."""
        state = self._journal.state
        before, after = state.evaluation, self._evaluator.own(result.weights, stage="absorbed")
        assert before is not None
        kept = self._strategy.keep(before, after)
        absorption = self._absorption(replace(choice, absorbed=(teacher,)), before=before, after=after, kept=kept)
        return Outcome(
            weights=result.weights if kept else state.weights,
            evaluation=after if kept else before,
            absorption=replace(absorption, samples=result.samples, forward=result.forward, seconds=result.seconds),
            generator=result.generator,
        )

    def absorb_merged(self, choice: Choice, candidates: Sequence[PulledCandidate]) -> Outcome | None:
        """Return the outcome of averaging with the candidates of some weight; None if there is none.

        The average is compared with the model at the start of the round. When it is not kept, the better of that
        model and the current one remains.
        """
        state = self._journal.state
        own, start, previous = state.evaluation, state.round_start, state.previous
        assert own is not None
        assert start is not None
        all_shares = self._strategy.shares(candidates, choice.situation)
        used = [(candidate, share) for candidate, share in zip(candidates, all_shares, strict=True) if share > 0]
        if not used:
            return None
        absorbed, shares = zip(*used, strict=True)
        models = [state.weights, *(candidate.model.weights for candidate in absorbed)]
        merged = self._weights.keep(merge(models, [1.0, *shares]))
        after = self._evaluator.own(merged, stage="absorbed")
        if previous is None:  # in the first round the model at its start has no evaluation
            start, previous = state.weights, own
        weights, evaluation, kept = self.keep_or_revert(start=start, before=previous, weights=merged, after=after)
        if not kept and own.accuracy > evaluation.accuracy:
            weights, evaluation = state.weights, own
        choice = replace(choice, absorbed=absorbed, shares=shares)
        absorption = self._absorption(choice, before=own, after=evaluation if kept else after, kept=kept)
        return Outcome(weights=weights, evaluation=evaluation, absorption=absorption)

    def _absorption(self, choice: Choice, *, before: Evaluation, after: Evaluation, kept: bool) -> Absorption:
        state = self._journal.state
        assert state.entity_id is not None
        absorbed = [candidate.knowledge for candidate in choice.absorbed]
        delivery = Delivery(
            student=state.entity_id,
            teachers=tuple(knowledge.id for knowledge in absorbed),
            method=choice.method.value,
            round=state.round,
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            kept=kept,
            reason=explanation(self._strategy, choice),
        )
        return Absorption(delivery=delivery, publishers=tuple(knowledge.entity for knowledge in absorbed))
