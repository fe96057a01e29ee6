"""Phases of an owner's training: what is decided between them, with everything that may fail held back."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from kuber.domain.evaluation import Evaluation
from kuber.domain.query import Query
from kuber.domain.strategy import Candidate, LocalPhase, Method, Strategy
from kuber.entity.absorption import Absorber, EvaluatedModel
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.session import HubSession
from kuber.entity.initialization import agree_if_reachable
from kuber.entity.own_prior import OwnPrior
from kuber.entity.owned_model import OwnedModel
from kuber.entity.round import Round
from kuber.entity.safeguard import Safeguard
from kuber.entity.state.checkpoint import Absorption
from kuber.entity.state.journal import Journal
from kuber.entity.teacher_selection import TeacherSelector
from kuber.errors import CorruptKnowledgeError, DivergedError, SettingsError, first_line
from kuber.learning.teachers import Teachers

T = TypeVar("T")
log = logging.getLogger("kuber")

ADVICE = "Lower the learning rate, or clip gradients."


class Phases:
    """Begins and ends phases: judges the model, keeps or undoes what changed, publishes, merges, selects teachers.

    A phase is the time between two calls of `step` of `kuber.Entity`.
    """

    def __init__(
        self,
        strategy: Strategy,
        owned: OwnedModel,
        *,
        journal: Journal,
        session: HubSession,
        round: Round,
        evaluator: Evaluator,
        absorber: Absorber,
        selector: TeacherSelector,
        prior: OwnPrior,
        safeguard: Safeguard,
        publishes: bool,
        owner_evaluates: bool,
    ) -> None:
        """Without `publishes` no copy is made for a publication that the owner has ruled out."""
        self._strategy = strategy
        self._owned = owned
        self._journal = journal
        self._session = session
        self._round = round
        self._evaluator = evaluator
        self._absorber = absorber
        self._selector = selector
        self._prior = prior
        self._safeguard = safeguard
        self._publishes = publishes
        self._owner_evaluates = owner_evaluates
        self.running = False  # whether a phase has begun in this process
        self.decided = False  # whether it has been kept or undone already

    def connect(self) -> None:
        """Join the hub if necessary and send queued messages; at first contact SettingsError names what is wrong."""
        self._safeguard.call("reach the hub", self._session.join_and_flush, None, checks_arguments=True)

    def evaluate(self, stage: str = "trained") -> Evaluation:
        """Evaluate the model as it is. Raises DivergedError when its logits are not finite."""
        try:
            return self._evaluator.own(None, stage=stage)
        except CorruptKnowledgeError as error:
            raise DivergedError(error.message) from None
        except SettingsError:
            raise
        except Exception as error:
            if not self._owner_evaluates:
                raise
            failure = f"{type(error).__name__}: {first_line(error)}"
            raise SettingsError(f"The function evaluate raised {failure}.") from error

    def local_phase(self) -> LocalPhase:
        """Return the objective of the next phase; plain cross-entropy when the strategy fails."""
        return self._decides("local_phase", lambda: self._strategy.local_phase(), LocalPhase())

    def begin(self, optimizer: Any) -> None:
        """Evaluate the model at the start of the first phase of a process."""
        if not self.running and self._decides("common_start", lambda: self._strategy.common_start, False):
            self._begin_in_common()
        self.evaluate_start(optimizer)
        if not self._owned.snapshot.has_optimizer:
            self._owned.snapshot.take_optimizer(optimizer)

    def evaluate_start(self, optimizer: Any = None) -> None:
        """Make the present model that of the start, unless the start has been evaluated already.

        Raises SettingsError when the first model of a process returns no finite logits.
        """
        owned = self._owned
        if owned.snapshot.evaluation is not None and not owned.replaced:
            return
        fault = owned.fault()
        if fault is not None and not owned.replaced:
            self._undo_diverged(optimizer, fault)
        elif not owned.replaced and not owned.snapshot.matches():
            owned.describe_again()
        try:
            evaluation = self._judged()
        except DivergedError as error:
            raise SettingsError(f"model has learned nothing to begin with: {error.message}") from None
        owned.take(optimizer, evaluation)

    def end(self, optimizer: Any) -> None:
        """Keep or undo the phase, publish, merge, and report; the next phase starts from the result."""
        journal, owned = self._journal, self._owned
        before = owned.snapshot.evaluation
        diverged = False
        try:
            own = self._keep_or_undo(optimizer)
        except DivergedError as error:
            self._undo_diverged(optimizer, error.message)
            own, diverged = before, True
        if own is not None and not diverged:
            journal.change(round_start=owned.snapshot.weights, previous=before, evaluation=own)
            situation = partial(self._round.situation, own, before)
            publishes = self._decides("publishes", lambda: self._strategy.publishes(situation()), False)
            if publishes or self._session.restoration.lost:
                self._session.restoration.done()
                self._guarded("publish", partial(self._publish, own), False)
            request = self._decides("after", lambda: self._strategy.after(situation()), None)
            if request is not None and request[0] is Method.MERGE:
                own = self._guarded("merge", partial(self._merge, request[1], own), own)
            self._owned.take(optimizer, own)
        self._forget_weights()
        if own is not None:
            self._guarded("end the round", partial(self._round.end, own), None)

    def keep(self, optimizer: Any) -> bool:
        """Keep or undo what changed since the snapshot, and take a new one; return whether anything is kept."""
        owned = self._owned
        if owned.snapshot.evaluation is None:
            evaluate = partial(self._evaluator.own, owned.snapshot.weights, stage="initial")
            owned.snapshot.evaluation = None if owned.replaced else self._guarded("evaluate", evaluate, None)
        kept: list[bool] = []
        try:
            own = self._keep_or_undo(optimizer, kept)
        except DivergedError as error:
            self._undo_diverged(optimizer, error.message)
            kept, own = [False], owned.snapshot.evaluation
        self._owned.take(optimizer, own)
        self._journal.save()
        return kept[0] if kept else True

    def publish(self) -> bool:
        """Publish the model as it is; return whether it is published now."""
        if not self.running:  # without `step`, publications count the phases
            self._journal.change(round=self._journal.state.round + 1)
        fault = self._owned.fault()
        try:
            own = None if fault else self._judged()
        except DivergedError as error:
            own, fault = None, error.message
        if fault is not None:
            self._warn(f"The model is not published: {fault.rstrip('.')}.", "publish")
        published = own is not None and self._publish(own)
        self._forget_weights()
        self._journal.save()
        return published

    def start(self) -> Teachers:
        """Begin the next phase; return its teachers."""
        self.running, self.decided = True, False
        self._journal.change(round=self._journal.state.round + 1)
        self._journal.append("round-started", {})
        return self.select()

    def select(self) -> Teachers:
        """Return the teachers of the next phase, chosen by the model at its start."""
        situation = partial(self._round.situation, self._owned.snapshot.evaluation, self._journal.state.previous)
        teachers = self._guarded("select teachers", lambda: self._selector.select(situation()), None)
        if teachers is None:
            teachers = self._selector.teachers = Teachers(classes=self._owned.adapter.task.classes)
        self._journal.save()
        return teachers

    def _keep_or_undo(self, optimizer: Any, kept: list[bool] | None = None) -> Evaluation | None:
        """Judge the model; if teachers were used, or with `kept`, keep or undo what changed, and append to `kept`.

        Return the evaluation of the result; None when it is not known. Raises DivergedError when there is nothing to
        judge.
        """
        owned = self._owned
        fault = owned.fault(optimizer)
        if fault is not None:
            raise DivergedError(fault)
        changed = not owned.replaced and not owned.snapshot.matches()
        if changed:
            self._warn("The tensors of the model are others now: it is described again, and not compared.", "tensors")
            self._guarded("describe the model", owned.describe_again, None)
        evaluation = self._judged()
        used = self._selector.used()
        if evaluation is None or owned.snapshot.evaluation is None or changed or not (used or kept is not None):
            return evaluation
        return self._guarded("keep or undo", partial(self._decide, optimizer, evaluation, used, kept), evaluation)

    def _decide(
        self, optimizer: Any, evaluation: Evaluation, used: Sequence[Candidate], kept: list[bool] | None
    ) -> Evaluation:
        """Keep or undo what changed since the snapshot; return the evaluation of the result."""
        owned, snapshot = self._owned, self._owned.snapshot
        assert snapshot.evaluation is not None
        before = EvaluatedModel(snapshot.weights, snapshot.evaluation)
        after = EvaluatedModel({} if owned.replaced else owned.adapter.weights(), evaluation)
        absorption = None
        if used:
            choice = self._selector.choice
            assert choice is not None, "used teachers were chosen"
            outcome = self._absorber.absorb_guided(choice, used, before, after)
            model, absorption, keeps = outcome.model, outcome.absorption, outcome.absorption.delivery.kept
        else:
            judged = self._absorber.keep_or_revert(before, after)
            model, keeps = judged.model, judged.kept
        if kept is not None:
            kept.append(keeps)
        if model is not after:
            self._go_back(optimizer, model, before)
            self._say_undone(before.evaluation, after.evaluation, model.evaluation, keeps=keeps)
        if absorption is not None:
            self._guarded("record the absorption", partial(self._record, absorption), None)
        return model.evaluation

    def _go_back(self, optimizer: Any, model: EvaluatedModel, before: EvaluatedModel) -> None:
        """Go back to the snapshot, or to the midpoint between it and the model."""
        owned, snapshot = self._owned, self._owned.snapshot
        if model is before:
            refused = owned.undo(optimizer)
        else:
            trained = snapshot.trained_midpoint()
            owned.adapter.load(model.weights)
            snapshot.load_trained(trained)
            refused = snapshot.restore_others(optimizer)
        for sentence in refused:
            self._warn(sentence, sentence)

    def _undo_diverged(self, optimizer: Any, reason: str) -> None:
        for sentence in self._owned.undo(optimizer):
            self._warn(sentence, sentence)
        self._selector.used()
        round = self._journal.state.round
        detail = {"action": "train", "reason": reason}
        sentence = f"The phase is undone: {reason[:1].lower()}{reason[1:].rstrip('.')}. {ADVICE}"
        self._session.alerts.add("failed", detail, sentence, cause=("diverged", round))

    def _say_undone(self, before: Evaluation, after: Evaluation, now: Evaluation, *, keeps: bool) -> None:
        what = "replaced by the midpoint" if keeps else "undone"
        figures = f"{before.accuracy:.1%} before, {after.accuracy:.1%} after, {now.accuracy:.1%} now"
        log.info("Entity %r: round %d is %s: %s.", self._journal.name, self._journal.state.round, what, figures)

    def _judged(self) -> Evaluation | None:
        """Return the evaluation of the model as it is; None when that fails."""
        return self._safeguard.call(
            "evaluate the model", self.evaluate, None, checks_arguments=True, passes=(DivergedError,)
        )

    def _begin_in_common(self) -> None:
        journal = self._journal
        if journal.state.origin is not None:
            return
        journal.change(weights=self._owned.adapter.weights())
        agree = partial(agree_if_reachable, journal, self._session)
        if self._guarded("agree on an initial checkpoint", agree, False):
            self._owned.adapter.load(journal.state.weights)
            self._owned.take(None, None)
        self._forget_weights()

    def _merge(self, query: Query, own: Evaluation) -> Evaluation:
        """Average with mergeable models, if there are any; return the evaluation of the result."""
        journal = self._journal
        if self._owned.replaced:
            return own
        journal.change(weights=self._owned.adapter.weights())
        situation = self._round.situation(own, journal.state.previous)
        outcome = self._absorber.absorb_merged(*self._selector.choose(Method.MERGE, query, situation))
        if outcome is None:
            return own
        self._owned.adapter.load(outcome.model.weights)
        self._guarded("record the absorption", partial(self._record, outcome.absorption), None)
        return outcome.model.evaluation

    def _publish(self, own: Evaluation) -> bool:
        if not self._publishes:
            return False
        self._journal.change(weights=self._owned.adapter.weights())
        # Teachers that were used are parents of this model even before the phase is kept or undone.
        self._round.add_parents([candidate.knowledge.id for candidate in self._selector.used(clear=False)])
        return self._session.publisher.publish(own, prior=self._prior.carried)

    def _record(self, absorption: Absorption) -> None:
        if absorption.delivery.kept:
            self._round.add_parents(absorption.delivery.teachers)
        key = self._journal.key(absorption.delivery.method)
        self._session.record(absorption, key=f"{key}/{self._journal.state.next_event}")

    def _forget_weights(self) -> None:
        """Drop copies of weights from the state: between two calls the model is its owner's."""
        self._journal.change(weights={}, round_start=None)

    def _warn(self, sentence: str, cause: str) -> None:
        self._session.alerts.warn(sentence, cause=cause)

    def _decides(self, decision: str, function: Callable[[], T], default: T) -> T:
        """Return a decision of the strategy; the default when it fails."""
        return self._safeguard.call(f"ask the strategy ({decision})", function, default)

    def _guarded(self, action: str, function: Callable[[], T], default: T) -> T:
        return self._safeguard.call(action, function, default)
