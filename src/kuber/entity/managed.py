"""Entities that KUber trains: discover, train, evaluate, publish and absorb, round after round."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from kuber.domain.deployment import Deployed
from kuber.domain.evaluation import Evaluation
from kuber.domain.policies import MergePolicy
from kuber.domain.prior import carried_prior
from kuber.domain.query import Query
from kuber.domain.significance import advantages
from kuber.domain.stated_prior import is_no_worse_without
from kuber.domain.strategy import Candidate, Choice, Method, Strategy
from kuber.entity.absorption import Absorber, EvaluatedModel, Outcome
from kuber.entity.deployment import Decision, decide
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess, Sharing
from kuber.entity.hub.candidate_models import PulledCandidate
from kuber.entity.hub.candidate_search import CandidateSearch
from kuber.entity.hub.session import HubSession
from kuber.entity.initialization import agree_on_initial_checkpoint, begin_in_common
from kuber.entity.managed_model import ManagedModel
from kuber.entity.private_network import PrivateNetwork
from kuber.entity.round import Round
from kuber.entity.state.checkpoint import State
from kuber.entity.state.journal import Journal
from kuber.entity.state.storage import Storage
from kuber.entity.waiting import Waiting
from kuber.entity.work.learner import AdjustedTeacher, PhaseTeacher, TeacherModel
from kuber.entity.work.steps import TrainingResult
from kuber.errors import KnowledgeError
from kuber.learning.outer_step import OuterStep, outer_step
from kuber.learning.teacher_priors import answer_shift
from kuber.learning.training import Span, span_of
from kuber.learning.weights import Weights

log = logging.getLogger("kuber")


class ManagedEntity:
    """One independent learner: its data, its model, its identity. It reaches others through its hub only."""

    def __init__(
        self,
        name: str,
        *,
        model: ManagedModel,
        strategy: Strategy,
        rounds: int,
        hub: HubAccess,
        storage: Storage,
        initial: Callable[[], State],
        starts: Callable[[], Sequence[Weights]] = tuple,
        sharing: Sharing | None = None,
        private: ManagedModel | None = None,
    ) -> None:
        """Resume from the checkpoint in `storage`; `initial` makes the state of an entity that has none.

        `starts` makes the weights that others begin from too, best first; none if they cannot be computed here. With
        a `private` network, which the state has too, the model is its proxy.
        """
        self.name = name
        self.model = model
        self.strategy = strategy
        self.rounds = rounds
        self._starts = starts
        self._journal = Journal(name, storage.checkpoints.latest() or initial(), storage)
        self._evaluator = Evaluator(model, self._journal)
        self._session = HubSession(self._journal, self._evaluator, hub, storage, sharing or Sharing())
        self._round = Round(strategy, model, self._journal, self._session)
        self._search = CandidateSearch(strategy, self._session.discovery, model.task)
        self._waiting = Waiting(strategy, self._session.discovery, hub.clock)
        self._weights = storage.weights
        self._absorber = Absorber(strategy, self._evaluator, self._journal, storage.weights)
        self._private: PrivateNetwork | None = None
        if private is not None:
            self._private = PrivateNetwork(model, private, strategy, self._journal, storage.weights)
        self._training = False  # whether a local phase is under way

    @property
    def progress(self) -> float:
        """Finished share of the rounds; the local phase counts as half of its round."""
        state = self._journal.state
        left = {"trained": 0.5, "shared": 0.5, "absorbed": 0.5, "ended": 1.0 if self._training else 0.0}[state.stage]
        return (state.round - left) / self.rounds

    @property
    def accuracy(self) -> float:
        """Accuracy on the common test set at the end of the last finished round; 0 before the first."""
        previous = self._journal.state.previous
        return previous.accuracy if previous else 0.0

    def run(self) -> None:
        """Run every remaining round.

        Raises ServiceUnavailableError when the hub is unreachable before the first round, or after the last while
        messages to it are queued. A new entity with the same storage resumes from there.
        """
        journal = self._journal
        self._session.join_and_flush()
        if self.strategy.common_start and journal.state.round == 0 and journal.state.origin is None:
            starts = self._starts()
            if starts:
                begin_in_common(journal, self._session, starts)
            else:
                agree_on_initial_checkpoint(journal, self._session)
            journal.save()
        while True:
            state = journal.state
            if state.stage == "ended":
                self._session.join_and_flush()
                self._publish_lost()
                if state.round >= self.rounds:
                    if self._session.outbox.blocked_by:
                        self._session.join_and_flush(retry=True)
                    self._session.require_flushed()
                    return
                self._local_phase()
            elif state.stage == "absorbed":
                self._record_absorption()
                self._end_round()
            else:
                self._decide()

    def _publish_lost(self) -> None:
        """Publish the current model again when the hub has lost records of this entity."""
        journal, restoration = self._journal, self._session.restoration
        if restoration.lost and journal.state.previous is not None:
            restoration.done()
            self._session.publisher.publish(journal.state.previous, prior=self.strategy.local_phase().prior)
            journal.save()

    def _local_phase(self) -> None:
        """Train on private data, with teachers if the strategy discovers any, and evaluate."""
        journal, discovery = self._journal, self._session.discovery
        journal.change(round=journal.state.round + 1)
        self._training = True
        journal.append("round-started", {})
        self._waiting.begin_round()
        start, previous = journal.state.weights, journal.state.previous
        choice: Choice | None = None
        teachers: Sequence[PulledCandidate] = ()
        request = self.strategy.before(self._round.situation(previous, previous))
        if request is not None:
            choice, teachers = self._examine(*request, previous, before_phase=True)
        if teachers and previous is None:
            previous = self._evaluator.own(start, stage="initial")
        records = [teacher.knowledge for teacher in teachers]
        result = discovery.models.refuse_if_unsound(partial(self._train, teachers, previous), *records)
        if result is None:
            teachers = ()
            result = self._train((), previous)
        dropped = {teacher.place: teacher for teacher in result.dropped if teacher.place < len(records)}
        for place, failure in dropped.items():
            discovery.models.refuse(records[place], failure.reason, slow=failure.slow)
        teachers = [teacher for place, teacher in enumerate(teachers) if place not in dropped]
        detail = {
            "samples": result.samples,
            "forward": result.forward,
            "loss": result.loss,
            "seconds": result.seconds,
        }
        journal.append("trained", detail)
        evaluation = self._evaluator.own(result.weights, stage="trained")
        weights, absorption = result.weights, None
        if choice is not None and teachers and previous is not None:
            before, after = EvaluatedModel(start, previous), EvaluatedModel(weights, evaluation)
            outcome = self._absorber.absorb_guided(choice, teachers, before, after)
            self._add_parents(outcome)
            (weights, evaluation), absorption = outcome.model, outcome.absorption
        journal.save(
            stage="trained",
            weights=weights,
            round_start=start,
            generator=result.generator,
            evaluation=evaluation,
            absorption=absorption,
        )
        self._training = False

    def _train(self, teachers: Sequence[PulledCandidate], previous: Evaluation | None) -> TrainingResult:
        """Train with the discovered teachers, and with the model at the start if the local phase wants it."""
        state, phase = self._journal.state, self.strategy.local_phase()
        if phase.guidance and state.guidance != 1.0:
            weight = state.guidance * phase.guidance.weight
            phase = replace(phase, guidance=replace(phase.guidance, weight=weight))
        start = state.weights if state.phase_start is None else state.phase_start
        phase_teachers = [self._phase_teacher(teacher, previous) for teacher in teachers]
        if phase.guidance and phase.guidance.own_start and previous is not None:
            own = TeacherModel(architecture=self.model.architecture, weights=state.weights)
            phase_teachers.append(PhaseTeacher(model=own, recalls=_recalls(previous)))
        return self.model.train(phase, start, state.generator, tuple(phase_teachers), self._span)

    def _phase_teacher(self, teacher: PulledCandidate, previous: Evaluation | None) -> PhaseTeacher:
        """Return a teacher and its advantages, without the prior that its record states, unless that is worse."""
        found = teacher.evaluation
        made: Callable[..., PhaseTeacher] = PhaseTeacher
        shift = answer_shift(teacher.knowledge, self.model.task.labels)
        if shift is not None:
            added = tuple(shift.tolist())
            without = self.model.evaluate_shifted(teacher.model, added)
            if is_no_worse_without(found, without):
                found, made = without, partial(AdjustedTeacher, shift=added)
        ahead = None if previous is None else advantages(found, previous)
        return made(model=teacher.model, recalls=_recalls(found), advantages=ahead)

    def _decide(self) -> None:
        """Publish and absorb as the strategy decides, and end the round."""
        journal = self._journal
        if journal.state.absorption is not None:
            self._record_absorption()
            journal.save(absorption=None)
        own, previous = self._evaluation, journal.state.previous
        if journal.state.stage == "trained" and self.strategy.publishes(self._round.situation(own, previous)):
            self._session.publisher.publish(own, prior=self.strategy.local_phase().prior)
            if journal.state.outbox:
                journal.save(stage="shared")  # else it would be queued again after a kill
        request = self.strategy.after(self._round.situation(own, previous))
        outcome = None if request is None else self._absorb(*request, own)
        step = None if outcome is None else self._outer_step(outcome)
        journal.change(
            phase_start=None if step is None else step.start, momentum=None if step is None else step.momentum
        )
        if outcome is None:
            self._end_round()
            return
        self._add_parents(outcome)
        journal.save(
            stage="absorbed",
            weights=outcome.model.weights,
            evaluation=outcome.model.evaluation,
            absorption=outcome.absorption,
            generator=journal.state.generator if outcome.generator is None else outcome.generator,
        )

    def _absorb(self, method: Method, query: Query, own: Evaluation) -> Outcome | None:
        """Absorb knowledge that the query finds; None when there is nothing to absorb."""
        if method is Method.DISTIL:
            return self._distil(self._choose(method, query, own))
        waited = self._waiting.wait(query, lambda: self._round.situation(own, self._journal.state.previous))
        choice, candidates = self._examine(method, query, own, waited=waited)
        outcome = self._merge(choice, candidates)
        if candidates and outcome is None:  # all of weight 0
            self._session.discovery.ended_without_teachers(method, choice)
        return outcome

    def _merge(self, choice: Choice, candidates: Sequence[PulledCandidate]) -> Outcome | None:
        """Average with the candidates; when that disappoints, evaluate those whose claims were taken.

        If one of them is refused then, the average is made again without it.
        """
        outcome = self._absorber.absorb_merged(choice, candidates)
        if outcome is None or not outcome.is_doubtful or not any(candidate.is_claim for candidate in candidates):
            return outcome
        again, evaluated = self._search.choose(choice.candidates, choice.method, choice.situation)
        if [each.knowledge.id for each in evaluated] == [each.knowledge.id for each in candidates]:
            return outcome
        return self._absorber.absorb_merged(again, evaluated)

    def _outer_step(self, outcome: Outcome) -> OuterStep | None:
        """Return the step beyond a merge that is the model now; None without one, or in a strategy without steps."""
        policy = getattr(self.strategy, "outer_step", None)  # a strategy may lack it
        state = self._journal.state
        if policy is None or not outcome.shares:
            return None
        start = state.round_start if state.phase_start is None else state.phase_start
        assert start is not None, "a merge follows a local phase"
        rate, decay = policy.scaled(outcome.shares)
        step = outer_step(start, outcome.model.weights, state.momentum, rate=rate, decay=decay)
        return OuterStep(start=self._weights.keep(step.start), momentum=self._weights.keep(step.momentum))

    def _distil(self, choice: Choice) -> Outcome | None:
        """Distil the first of the chosen that can be pulled; None when there is none, or it is unsound."""
        state, session = self._journal.state, self._session
        pulled: list[TeacherModel] = []

        def distil(model: TeacherModel) -> TrainingResult:
            pulled.append(model)
            # Through the round's span again: the local phase leaves it no part, since most rounds distil nothing.
            return self.model.distil(model, state.weights, state.generator, self._span)

        for knowledge in choice.chosen:
            use = partial(session.discovery.models.use, knowledge, distil)
            result = session.availability.call(use, None, action="pull")
            if result is not None:
                candidate = Candidate(knowledge=knowledge, evaluation=knowledge.evaluation)
                return self._absorber.absorb_distilled(choice, candidate, result)
            if pulled:  # and unsound: one distillation in a round is enough
                break
        session.discovery.ended_without_teachers(choice.method, None if choice.chosen else choice)
        return None

    def _examine(
        self,
        method: Method,
        query: Query,
        own: Evaluation | None,
        *,
        before_phase: bool = False,
        waited: float = 0.0,
    ) -> tuple[Choice, Sequence[PulledCandidate]]:
        """Choose among what the query finds, and pull and evaluate it; return the choice and the sound models."""
        discovery = self._session.discovery
        candidates = discovery.candidates(query, before_phase=before_phase, waited=waited)
        situation = self._round.situation(own, self._journal.state.previous)
        merging = getattr(self.strategy, "merging", None) if method is Method.MERGE else None
        checked = merging.checked if isinstance(merging, MergePolicy) else None  # a strategy may have another one
        choice, tested = self._search.choose(candidates, method, situation, checked=checked)
        if not tested:
            discovery.ended_without_teachers(method, None if choice.chosen else choice)
        return choice, tested

    def _choose(self, method: Method, query: Query, own: Evaluation | None) -> Choice:
        candidates = self._session.discovery.candidates(query)
        return self._round.choose(method, candidates, self._round.situation(own, self._journal.state.previous))

    def _end_round(self) -> None:
        """Train the private network, if there is one, and end the round."""
        trained = None if self._private is None else self._private.train(self._span)
        self._round.end(self._evaluation, deploy=partial(self._deploy, trained))

    def _deploy(self, trained: TrainingResult | None) -> Decision:
        """Decide which model is deployed at the end of the round, beside the trained private network, if any."""
        state, model = self._journal.state, self.model
        decision = decide(
            state.deployed,
            round=state.round,
            current=state.weights,
            evaluation=self._evaluation,
            earlier=self._journal.earlier_models(model.architecture),
            average=model.average,
        )
        last = state.round == self.rounds
        if not last and trained is None:
            return decision
        weights = self._deployed_weights(decision)
        if self._private is not None and trained is not None:
            if weights is None:
                weights = state.weights
                decision = replace(decision, deployed=Deployed(round=state.round, evaluation=self._evaluation))
            decision = self._private.answer_with(decision, weights, trained)
        if weights is None or not last:
            return decision
        carried = carried_prior(self.strategy.local_phase(), model.class_counts)
        return decision.with_personal(model.personalise(weights, carried))

    def _deployed_weights(self, decision: Decision) -> Weights | None:
        try:
            return self._journal.deployed_weights(decision, self.model.architecture)
        except KnowledgeError as error:
            log.warning("The deployed model cannot be used here: %s", error.message)
            return None

    def _add_parents(self, outcome: Outcome) -> None:
        if outcome.absorption.delivery.kept:
            self._round.add_parents(outcome.absorption.delivery.teachers)

    def _record_absorption(self) -> None:
        absorption = self._journal.state.absorption
        assert absorption is not None
        self._session.record(absorption, key=self._journal.key(absorption.delivery.method))

    @property
    def _span(self) -> Span:
        return span_of(self._journal.state.round, self.rounds)

    @property
    def _evaluation(self) -> Evaluation:
        evaluation = self._journal.state.evaluation
        assert evaluation is not None, "between local phase and end of round the model has an evaluation"
        return evaluation


def _recalls(evaluation: Evaluation) -> tuple[float, ...]:
    return tuple(recall or 0.0 for recall in evaluation.recalls)
