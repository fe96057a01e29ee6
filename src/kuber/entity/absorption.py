"""Outcome of guiding, distilling or merging: keep the new model, the midpoint, or the old one."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from kuber.domain.acceptance import ClassFall
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import disclosed
from kuber.domain.explanation import explanation, made_up_for, why_kept, why_not_kept
from kuber.domain.strategy import Candidate, Choice, Strategy
from kuber.entity.evaluator import Evaluator
from kuber.entity.gate import Gate, next_guidance
from kuber.entity.hub.candidate_models import PulledCandidate
from kuber.entity.state.checkpoint import Absorption
from kuber.entity.state.journal import Journal
from kuber.entity.work.steps import TrainingResult
from kuber.entity.work.weight_store import WeightStore
from kuber.errors import first_line
from kuber.learning.merging import average, merge
from kuber.learning.weights import Weights

log = logging.getLogger("kuber")


class EvaluatedModel(NamedTuple):
    """Weights and their evaluation."""

    weights: Weights
    evaluation: Evaluation


class Judged(NamedTuple):
    """The model that is left of an absorption."""

    model: EvaluatedModel
    kept: bool  # all of the absorption, or half
    halved: bool = False
    fallen: tuple[ClassFall, ...] = ()  # classes that the whole of it made fall

    @property
    def harmless(self) -> bool:
        """Whether the whole is kept, and made no class fall."""
        return self.kept and not self.halved and not self.fallen


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The model after an absorption, and the absorption to record."""

    model: EvaluatedModel
    absorption: Absorption
    generator: Tensor | None = None  # its state after epochs of its own
    shares: Sequence[float] = ()  # of others, beside the own model's 1, in a merge whose whole is the model
    is_doubtful: bool = False  # whether a merge is worse than what it is compared with, or not kept as a whole


class Absorber:
    """Turns candidates into outcomes, as a strategy decides."""

    def __init__(self, strategy: Strategy, evaluator: Evaluator, journal: Journal, weights: WeightStore) -> None:
        self._strategy = strategy
        self._gate = Gate(strategy, evaluator.model)
        self._evaluator = evaluator
        self._journal = journal
        self._weights = weights

    def keep_or_revert(self, before: EvaluatedModel, after: EvaluatedModel) -> Judged:
        """Return the new model if the strategy keeps it; else the midpoint, if it keeps that; else the old model."""
        kept, fallen = self._gate.judge(before.evaluation, after.evaluation)
        if kept:
            return Judged(after, kept=True, fallen=fallen)
        if not _have_mean(before.weights, after.weights):
            return Judged(before, kept=False, fallen=fallen)
        weights = self._weights.keep(average([before.weights, after.weights], [1.0, 1.0]))
        halfway = EvaluatedModel(weights, self._evaluator.own(weights, stage="halfway"))
        if self._gate.judge(before.evaluation, halfway.evaluation).kept:
            return Judged(halfway, kept=True, halved=True, fallen=fallen)
        return Judged(before, kept=False, fallen=fallen)

    def absorb_guided(
        self, choice: Choice, teachers: Sequence[Candidate], before: EvaluatedModel, after: EvaluatedModel
    ) -> Outcome:
        """Return the outcome of a local phase with these teachers, from the model before to the model after.

        After a phase that is undone, kept half-way only, or makes a class fall, the next one gets less guidance.
        """
        judged = self.keep_or_revert(before, after)
        absorption = self._absorption(
            replace(choice, absorbed=teachers), before.evaluation, after.evaluation, judged=judged
        )
        guidance = next_guidance(self._journal.state.guidance, harmless=judged.harmless)
        self._journal.change(guidance=guidance)
        return Outcome(model=judged.model, absorption=absorption)

    def absorb_distilled(self, choice: Choice, teacher: Candidate, result: TrainingResult) -> Outcome:
        """Return the outcome of distilling a teacher in epochs of its own."""
        before = self._current()
        after = EvaluatedModel(result.weights, self._evaluator.own(result.weights, stage="absorbed"))
        kept, fallen = self._gate.judge(before.evaluation, after.evaluation)
        judged = Judged(after if kept else before, kept=kept, fallen=fallen)
        absorption = self._absorption(
            replace(choice, absorbed=(teacher,)), before.evaluation, after.evaluation, judged=judged
        )
        return Outcome(
            model=judged.model,
            absorption=replace(absorption, samples=result.samples, forward=result.forward, seconds=result.seconds),
            generator=result.generator,
        )

    def absorb_merged(self, choice: Choice, candidates: Sequence[PulledCandidate]) -> Outcome | None:
        """Return the outcome of averaging with the candidates of some weight; None if there is none.

        The average is compared with the model at the start of the round. When it is not kept, the better of that
        model and the current one remains.
        """
        state, current = self._journal.state, self._current()
        assert state.round_start is not None
        all_shares = self._strategy.shares(candidates, choice.situation)
        used = [(candidate, share) for candidate, share in zip(candidates, all_shares, strict=True) if share > 0]
        if not used:
            return None
        absorbed, shares = zip(*used, strict=True)
        models = [current.weights, *(candidate.model.weights for candidate in absorbed)]
        merged = self._weights.keep(merge(models, [1.0, *shares]))
        after = EvaluatedModel(merged, self._evaluator.own(merged, stage="absorbed"))
        # The trained model is no measure of an average, least of all in the first round: averages dip before they
        # gain, and who undoes the first one goes a way on which no later average is any good.
        start = EvaluatedModel(
            state.round_start, state.previous or self._evaluator.own(state.round_start, stage="initial")
        )
        judged = self.keep_or_revert(start, after)
        model = judged.model
        if not judged.kept and current.evaluation.accuracy > model.evaluation.accuracy:
            model = current
        absorption = self._absorption(
            replace(choice, absorbed=absorbed, shares=shares),
            current.evaluation,
            after.evaluation,
            judged=judged,
            reference=start.evaluation,
        )
        whole = judged.kept and not judged.halved
        return Outcome(
            model=model,
            absorption=absorption,
            shares=shares if whole else (),
            is_doubtful=not judged.kept or judged.halved or after.evaluation.accuracy < start.evaluation.accuracy,
        )

    def _current(self) -> EvaluatedModel:
        state = self._journal.state
        assert state.evaluation is not None
        return EvaluatedModel(state.weights, state.evaluation)

    def _absorption(
        self,
        choice: Choice,
        before: Evaluation,
        absorbed_all: Evaluation,
        *,
        judged: Judged,
        reference: Evaluation | None = None,
    ) -> Absorption:
        """Return the absorption, of which `absorbed_all` is the evaluation before the verdict.

        `reference` is what the strategy compared the result with, if not `before`.
        """
        state, task = self._journal.state, self._evaluator.model.task
        private, reference = task.test_set is None, reference or before
        after = judged.model.evaluation if judged.kept else absorbed_all
        explain: Any = {
            "labels": task.labels,
            "private": private,
            "class_counts": self._evaluator.model.class_counts,
        }
        sentences = []
        if judged.halved or not judged.kept:
            fallen, halved = judged.fallen, judged.halved
            sentences.append(
                why_not_kept(self._strategy, reference, absorbed_all, fallen=fallen, halved=halved, **explain)
            )
        if judged.kept and after.accuracy < before.accuracy:
            sentences.append(why_kept(self._strategy, reference, after, **explain))
        elif judged.kept and judged.fallen and not judged.halved:
            sentences.append(made_up_for(reference, judged.fallen, labels=task.labels, private=private))
        why = " ".join(sentences)
        assert state.entity_id is not None
        absorbed = [candidate.knowledge for candidate in choice.absorbed]
        delivery = Delivery(
            student=state.entity_id,
            teachers=tuple(knowledge.id for knowledge in absorbed),
            method=choice.method.value,
            round=state.round,
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            kept=judged.kept,
            reason=_explanation(self._strategy, choice, why),
        )
        sent = (disclosed(before, task)[0].accuracy, disclosed(after, task)[0].accuracy) if private else None
        return Absorption(
            delivery=delivery,
            publishers=tuple(knowledge.entity for knowledge in absorbed),
            sent=sent,
            fallen=tuple((fall.label, fall.before, fall.after) for fall in judged.fallen),
        )


def _explanation(strategy: Strategy, choice: Choice, why: str) -> str | None:
    try:
        return explanation(strategy, choice, why)
    except Exception as error:  # noqa: BLE001 - a sentence is worth no training
        log.warning("The strategy cannot explain its choice: %s: %s.", type(error).__name__, first_line(error))
        return why or None


def _have_mean(first: Weights, second: Weights) -> bool:
    """Return whether two models have the same tensors, and any."""
    return bool(first) and {name: tensor.shape for name, tensor in first.items()} == {
        name: tensor.shape for name, tensor in second.items()
    }
