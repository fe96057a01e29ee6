"""The loop of an entity: seek guides, train, evaluate, decide, share or retrieve, round after round.

`ManagedEntity.run` makes work steps (training, evaluation, distillation) and passes each to `execute`, which
returns its result: `execute` determines where and when the work is done. Between two work steps the entity decides.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kuber.domain.evaluation import Evaluation
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Query
from kuber.domain.strategy import Candidate, Choice, LocalPhase, Method, Situation, Strategy
from kuber.domain.task import Task
from kuber.entity.absorption import EvaluatedTeachers, Outcome, absorb_distilled, absorb_guided, absorb_merged
from kuber.entity.hub.publisher import Consents, Forms, as_weights
from kuber.entity.hub.session import open_session
from kuber.entity.initialization import agree_on_initial_checkpoint
from kuber.entity.state.blob_cache import BlobCache, PendingBlobs
from kuber.entity.state.checkpoint import Absorption, CheckpointStore, State
from kuber.entity.state.event_log import EventSink
from kuber.entity.state.journal import Journal
from kuber.entity.work.learner import Guide, Learner, TeacherModel
from kuber.entity.work.steps import Execute, TrainingResult, common_evaluation, training
from kuber.entity.work.weight_store import WeightStore
from kuber.errors import KnowledgeError
from kuber.learning.weights import Weights
from kuber.signing import Identity


class ManagedEntity:
    """One independent learner: its data, its model, its identity. Talks to the world through two ports only."""

    def __init__(
        self,
        name: str,
        *,
        task: Task,
        learner: Learner,
        strategy: Strategy,
        rounds: int,
        registry: Registry,
        vault: Vault,
        checkpoints: CheckpointStore,
        log: EventSink,
        class_counts: tuple[int, ...],
        identity: Identity,
        reports: bool = True,
        verified_only: bool = False,
        consents: Consents = lambda evaluation, round: True,
        narrow: bool = False,
        forms: Forms = as_weights,
        waiting: PendingBlobs | None = None,
        cache: BlobCache | None = None,
        housing: WeightStore | None = None,
        initial: Callable[[], State],
        execute: Execute,
    ) -> None:
        """`initial` makes the state before the first round; it is not called where a checkpoint exists.

        `consents` is asked before each publication, with what would be claimed and the round; `narrow` weights are
        published as bfloat16, in the `forms` that are made of them. Weights that the vault does not take now go to
        `waiting`: without it, that is an error. What was pulled is kept in `cache`, and weights at rest lie where
        `housing` puts them.
        """
        self.name = name
        self.task = task
        self.learner = learner
        self.strategy = strategy
        self.rounds = rounds
        self.registry = registry
        self.checkpoints = checkpoints
        self.class_counts = class_counts
        self.reports = reports
        self._execute = execute
        self._training = False  # whether a local phase is under way
        self._journal = journal = Journal(name, checkpoints.latest() or initial(), checkpoints=checkpoints, log=log)
        ties = open_session(
            journal,
            identity,
            registry=registry,
            vault=vault,
            task=task,
            architecture=learner.architecture,
            evaluating=partial(common_evaluation, learner),
            execute=execute,
            sample_count=len(learner.private),
            class_counts=class_counts,
            waiting=waiting,
            cache=cache,
            verified_only=verified_only,
            consents=consents,
            narrow=narrow,
            forms=forms,
            housing=housing,
        )
        self._line, self._outbox, self._membership = ties.line, ties.outbox, ties.membership
        self._retrieval, self._publisher = ties.retrieval, ties.publisher

    @property
    def progress(self) -> float:
        """The share of its rounds that is done; within a round, half of it after the local phase."""
        state = self._journal.state
        left = {"trained": 0.5, "shared": 0.5, "absorbed": 0.5, "ended": 1.0 if self._training else 0.0}[state.stage]
        return (state.round - left) / self.rounds

    @property
    def accuracy(self) -> float:
        """On the common test set, at the end of the last round that is done; 0 before the first."""
        previous = self._journal.state.previous
        return previous.accuracy if previous else 0.0

    def run(self) -> None:
        """Live every remaining round.

        Raises ServiceUnavailableError when the hub is away before the first round, or after the last with something
        still to be told: started again, the entity goes on from there.
        """
        self._membership.meet()
        if self._journal.state.seq == 0:
            self._log_joined()
            self._journal.save()
        if self.strategy.common_start and self._journal.state.round == 0 and self._journal.state.origin is None:
            agree_on_initial_checkpoint(self._journal, self.learner.architecture, self._retrieval, self._publisher)
            self._journal.save()
        while True:
            state = self._journal.state
            if state.stage == "ended":
                self._membership.meet()
                if state.round >= self.rounds:
                    self._membership.check_told()
                    return
                self._local_phase()
            elif state.stage == "absorbed":
                self._record_absorption()
                self._end_round()
            else:
                self._decide()

    def _local_phase(self) -> None:
        """Train on private data, guided or not, and evaluate; the state that results can be decided upon."""
        journal, retrieval = self._journal, self._retrieval
        journal.change(round=journal.state.round + 1)
        self._training = True
        journal.append("round-started", {})
        start, previous = journal.state.weights, journal.state.previous
        phase = self.strategy.local_phase()
        choice: Choice | None = None
        taught: EvaluatedTeachers = ()
        request = self.strategy.before(self._situation(previous))
        if request is not None:
            choice = self._found(*request, previous)
            taught = retrieval.tested(choice.chosen, choice.method)
        if taught and previous is None:
            previous = retrieval.evaluated(start, stage="initial")
        guides = self._guides(phase, taught, start, previous)
        generator = journal.state.generator
        try:
            learnt: TrainingResult = self._execute(training(self.learner, phase, start, generator, guides))
        except KnowledgeError as error:  # sound weights can still speak nonsense
            for one, _ in taught:
                retrieval.refuse(one.knowledge, error.message, 0)
            taught = ()
            guides = self._guides(phase, taught, start, previous)
            learnt = self._execute(training(self.learner, phase, start, generator, guides))
        detail = {
            "samples": learnt.samples,
            "forward": learnt.forward,
            "loss": learnt.loss,
            "seconds": learnt.seconds,
        }
        journal.append("trained", detail)
        own = retrieval.evaluated(learnt.weights, stage="trained")
        absorption, weights = None, learnt.weights
        if choice is not None and taught and previous is not None:
            outcome = absorb_guided(
                self.strategy, retrieval, choice, taught, start=start, before=previous, weights=weights, after=own
            )
            absorption, weights, own = self._absorbed(outcome), outcome.weights, outcome.own
        journal.save(
            stage="trained",
            weights=weights,
            start=start,
            generator=learnt.generator,
            own=own,
            absorption=absorption,
        )
        self._training = False

    def _guides(
        self, phase: LocalPhase, taught: EvaluatedTeachers, start: Weights, previous: Evaluation | None
    ) -> tuple[Guide, ...]:
        """Who speaks in a local phase: those that were sought, and the start model where the phase wants it."""
        guides = [Guide(teacher=teacher, recalls=_recalls(one.evaluation)) for one, teacher in taught]
        if phase.guidance and phase.guidance.own_start and previous is not None:
            own = TeacherModel(architecture=self.learner.architecture, weights=start)
            guides.append(Guide(teacher=own, recalls=_recalls(previous)))
        return tuple(guides)

    def _decide(self) -> None:
        """Publish, retrieve or rest, as the strategy says."""
        journal = self._journal
        if journal.state.absorption is not None:
            self._record_absorption()
            journal.save(absorption=None)
        own = self._own
        if journal.state.stage == "trained" and self.strategy.publishes(self._situation(own)):
            self._publisher.publish(own)
            if journal.state.errands:
                journal.save(stage="shared")  # else it would be queued again after a kill
        request = self.strategy.after(self._situation(own))
        if request is not None:
            outcome = self._retrieve(*request, own)
            if outcome is not None:
                changes = {} if outcome.learnt is None else {"generator": outcome.learnt.generator}
                absorption = self._absorbed(outcome)
                journal.save(
                    stage="absorbed", weights=outcome.weights, own=outcome.own, absorption=absorption, **changes
                )
        if journal.state.stage != "absorbed":
            self._end_round()

    def _retrieve(self, method: Method, query: Query, own: Evaluation) -> Outcome | None:
        """Absorb knowledge that the query finds; None when there is nothing to absorb."""
        choice = self._found(method, query, own)
        if method is Method.DISTIL:
            return self._distil(choice)
        taught = self._retrieval.tested(choice.chosen, method)
        return absorb_merged(self.strategy, self._retrieval, choice, self._journal.state, taught)

    def _found(self, method: Method, query: Query, own: Evaluation | None) -> Choice:
        """Return what the strategy chooses among the knowledge that the query finds."""
        candidates = self._retrieval.candidates(query)
        self._journal.append("sought", {"candidates": len(candidates)})
        situation = self._situation(own)
        chosen = self.strategy.choose(candidates, method, situation)
        return Choice(method=method, situation=situation, candidates=candidates, chosen=list(chosen))

    def _distil(self, choice: Choice) -> Outcome | None:
        """Distil the first sound one of the chosen; None when there is none."""
        for knowledge in choice.chosen:
            teacher = self._line.ask(partial(self._retrieval.pull, knowledge), None)
            if teacher is None:
                continue
            taught = Candidate(knowledge=knowledge, evaluation=knowledge.evaluation), teacher
            try:
                state = self._journal.state
                return absorb_distilled(
                    self.strategy, self._retrieval, self.learner, state, choice, taught, self._execute
                )
            except KnowledgeError as error:  # sound weights can still speak nonsense
                self._retrieval.refuse(knowledge, error.message, 0)
                return None
        return None

    def _absorbed(self, outcome: Outcome) -> Absorption:
        """What is to be recorded; teachers whose knowledge stays become parents of what is published next."""
        state = self._journal.state
        if outcome.kept:
            ids = (one.knowledge.id for one in outcome.candidates)
            self._journal.change(parents=tuple(dict.fromkeys((*state.parents, *ids))))
        return outcome.absorption(self._membership.id, state.round)

    def _record_absorption(self) -> None:
        absorption = self._journal.state.absorption
        assert absorption is not None
        delivery = absorption.delivery
        if not self.reports:  # its figures say how good our model is, class by class
            delivery = replace(delivery, reason=None)
        self._outbox.record(delivery, key=self._journal.key(delivery.method))
        self._journal.append("absorbed", absorption.detail)

    def _end_round(self) -> None:
        journal, state = self._journal, self._journal.state
        if self.reports:
            report = partial(self.registry.report, self._membership.id, round=state.round, evaluation=self._own)
            self._line.ask(report, None)
        name = self.checkpoints.save_round(state.round, state.weights)
        journal.append("round-ended", {"accuracy": self._own.accuracy, "checkpoint": name})
        journal.save(stage="ended", previous=self._own, own=None, start=None, absorption=None)

    def _log_joined(self) -> None:
        learner = self.learner
        detail = {
            "id": self._membership.id,
            "samples": len(learner.private),
            "class_counts": self.class_counts,
            "architecture": learner.architecture.name,
            "device": learner.runtime.device,
            "precision": learner.runtime.precision,
            "threads": learner.runtime.threads,
        }
        self._journal.append("joined", detail)

    def _situation(self, own: Evaluation | None) -> Situation:
        state = self._journal.state
        return state.situation(
            own=own,
            previous=state.previous,
            classes=self.task.classes,
            samples=len(self.learner.private),
            architecture=self.learner.architecture,
        )

    @property
    def _own(self) -> Evaluation:
        own = self._journal.state.own
        assert own is not None, "a state between local phase and end of round has an evaluation"
        return own


def _recalls(evaluation: Evaluation) -> tuple[float, ...]:
    return tuple(recall or 0.0 for recall in evaluation.recalls)
