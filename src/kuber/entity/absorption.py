"""Absorbing what was retrieved: distilled after the local phase, merged, or heard in it; and the gate behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.explanation import explanation
from kuber.domain.strategy import Candidate, Choice, Method, Strategy
from kuber.entity.hub.discovery import Discovery
from kuber.entity.state.checkpoint import Absorption, State
from kuber.entity.work.learner import Learner, TeacherModel
from kuber.entity.work.steps import Execute, TrainingResult, distillation
from kuber.learning.merging import average, merge
from kuber.learning.weights import Weights

EvaluatedTeachers = Sequence[tuple[Candidate, TeacherModel]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What absorbing came to."""

    method: Method
    candidates: tuple[Candidate, ...]  # that were absorbed
    weights: Weights  # that stay
    before: Evaluation
    after: Evaluation  # of what came out, half-way or whole
    kept: bool
    own: Evaluation  # of the weights that stay
    learnt: TrainingResult | None = None  # where epochs of their own were trained
    reason: str | None = None  # why these candidates, where the strategy says it

    def absorption(self, student: str, round: int) -> Absorption:
        """What is to be recorded of it; `student` is an entity's id."""
        delivery = Delivery(
            student=student,
            teachers=tuple(one.knowledge.id for one in self.candidates),
            method=self.method.value,
            round=round,
            accuracy_before=self.before.accuracy,
            accuracy_after=self.after.accuracy,
            kept=self.kept,
            reason=self.reason,
        )
        return Absorption(
            delivery=delivery,
            publishers=tuple(one.knowledge.entity for one in self.candidates),
            samples=self.learnt.samples if self.learnt else 0,
            forward=self.learnt.forward if self.learnt else 0,
            seconds=self.learnt.seconds if self.learnt else 0.0,
        )


def keep_or_revert(
    strategy: Strategy,
    retrieval: Discovery,
    *,
    start: Weights,
    before: Evaluation,
    weights: Weights,
    after: Evaluation,
) -> tuple[Weights, Evaluation, bool]:
    """What stays: the new weights; else half-way to them; else those of the start, and nothing is kept."""
    if strategy.keep(before, after):
        return weights, after, True
    halfway = retrieval.housing.keep(average([start, weights], [1.0, 1.0]))
    evaluation = retrieval.evaluated(halfway, stage="halfway")
    if strategy.keep(before, evaluation):
        return halfway, evaluation, True
    return start, before, False


def absorb_guided(
    strategy: Strategy,
    retrieval: Discovery,
    choice: Choice,
    taught: EvaluatedTeachers,
    *,
    start: Weights,
    before: Evaluation,
    weights: Weights,
    after: Evaluation,
) -> Outcome:
    """The outcome of a local phase from `start` to `weights` in which `taught` were heard."""
    weights, own, kept = keep_or_revert(strategy, retrieval, start=start, before=before, weights=weights, after=after)
    heard = tuple(one for one, _ in taught)
    return Outcome(
        method=Method.GUIDE,
        candidates=heard,
        weights=weights,
        before=before,
        after=own if kept else after,
        kept=kept,
        own=own,
        reason=explanation(strategy, replace(choice, absorbed=heard)),
    )


def absorb_distilled(
    strategy: Strategy,
    retrieval: Discovery,
    learner: Learner,
    state: State,
    choice: Choice,
    taught: tuple[Candidate, TeacherModel],
    execute: Execute,
) -> Outcome:
    """Distil a teacher in epochs of its own. Raises CorruptKnowledgeError when it speaks nonsense."""
    candidate, teacher = taught
    assert state.own is not None
    learnt: TrainingResult = execute(distillation(learner, teacher, state.weights, state.generator))
    after = retrieval.evaluated(learnt.weights, stage="absorbed")
    kept = strategy.keep(state.own, after)
    return Outcome(
        method=Method.DISTIL,
        candidates=(candidate,),
        weights=learnt.weights if kept else state.weights,
        before=state.own,
        after=after,
        kept=kept,
        own=after if kept else state.own,
        learnt=learnt,
        reason=explanation(strategy, replace(choice, absorbed=(candidate,))),
    )


def absorb_merged(
    strategy: Strategy, retrieval: Discovery, choice: Choice, state: State, taught: EvaluatedTeachers
) -> Outcome | None:
    """Average with those that weigh something; None when none does.

    Compared with the model that this round began with; when it is not kept, the better of that and our own stays.
    """
    own, start, previous = state.own, state.start, state.previous
    assert own is not None
    assert start is not None
    shares = strategy.shares([one for one, _ in taught], choice.situation)
    used = [(*pair, share) for pair, share in zip(taught, shares, strict=True) if share > 0]
    if not used:
        return None
    candidates, shares = tuple(one for one, *_ in used), tuple(share for *_, share in used)
    mixed = retrieval.housing.keep(
        merge([state.weights, *(teacher.weights for _, teacher, _ in used)], [1.0, *shares])
    )
    after = retrieval.evaluated(mixed, stage="absorbed")
    if previous is None:  # the first round: nothing is known of what it began with
        start, previous = state.weights, own
    weights, stays, kept = keep_or_revert(
        strategy, retrieval, start=start, before=previous, weights=mixed, after=after
    )
    if not kept and own.accuracy > stays.accuracy:
        weights, stays = state.weights, own
    return Outcome(
        method=Method.MERGE,
        candidates=candidates,
        weights=weights,
        before=own,
        after=stays if kept else after,
        kept=kept,
        own=stays,
        reason=explanation(strategy, replace(choice, absorbed=candidates, shares=shares)),
    )
