"""The loop of an entity: seek guides, train, evaluate, decide, share or retrieve, round after round.

`Entity.steps` is a generator. It yields work steps (training, evaluation, distillation) and is sent their results;
between two of them it decides, on its two ports. Whoever drives it chooses where and when the work is done.
"""

from collections.abc import Callable, Generator
from typing import Any

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Artifact, Draft, Knowledge
from kuber.domain.ports import Registry, Vault
from kuber.domain.strategy import Candidate, LocalPhase, Method, Search, Situation, Strategy
from kuber.domain.task import Task
from kuber.entity.absorption import Outcome, Taught, distilled, guided, merged
from kuber.entity.checkpoint import Absorption, Keeper, State
from kuber.entity.journal import Journal
from kuber.entity.learner import Guide, Learner, Teacher
from kuber.entity.log import Log
from kuber.entity.retrieval import Retrieval
from kuber.entity.trust import Trust
from kuber.entity.work import Learnt, Work, training
from kuber.errors import KnowledgeError
from kuber.learning.weights import Weights, dump
from kuber.signing import Identity

Steps = Generator[Work, Any, None]
Consents = Callable[[Evaluation, int], bool]


class Entity:
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
        checkpoints: Keeper,
        log: Log,
        class_counts: tuple[int, ...],
        identity: Identity,
        reports: bool = True,
        verified_only: bool = False,
        consents: Consents = lambda evaluation, round: True,
        initial: Callable[[], State],
    ) -> None:
        """`initial` makes the state before the first round; it is not called where a checkpoint exists.

        `consents` is asked before each publication, with what would be claimed and the round.
        """
        self.name = name
        self.task = task
        self.learner = learner
        self.strategy = strategy
        self.rounds = rounds
        self.registry = registry
        self.vault = vault
        self.checkpoints = checkpoints
        self.class_counts = class_counts
        self.identity = identity
        self.reports = reports
        self.verified_only = verified_only
        self.consents = consents
        self._training = False  # whether a local phase is under way
        self._journal = Journal(name, checkpoints.latest() or initial(), checkpoints=checkpoints, log=log)

    @property
    def progress(self) -> float:
        """The share of its rounds that is done; within a round, half of it after the local phase."""
        state = self._journal.state
        left = {"trained": 0.5, "absorbed": 0.5, "ended": 1.0 if self._training else 0.0}[state.stage]
        return (state.round - left) / self.rounds

    @property
    def accuracy(self) -> float:
        """On the common test set, at the end of the last round that is done; 0 before the first."""
        previous = self._journal.state.previous
        return previous.accuracy if previous else 0.0

    def steps(self) -> Steps:
        """Every remaining round, as work steps to be done and sent back."""
        member = self.registry.register(self.name, public_key=self.identity.public_key)
        self._id = member.id
        self._trust = Trust(self.identity, registry=self.registry, journal=self._journal)
        self._retrieval = Retrieval(
            id=self._id,
            task=self.task,
            learner=self.learner,
            registry=self.registry,
            vault=self.vault,
            journal=self._journal,
            trust=self._trust,
            verified_only=self.verified_only,
        )
        if self._journal.state.seq == 0:
            self._journal.change(published=member.sequence)
            self._log_joined()
            self._journal.save()
        if self.strategy.common_start and self._journal.state.round == 0 and self._journal.state.origin is None:
            yield from self._agree_on_start()
            self._journal.save()
        while True:
            state = self._journal.state
            if state.stage == "ended":
                if state.round >= self.rounds:
                    return
                yield from self._local_phase()
            elif state.stage == "trained":
                yield from self._decide()
            else:
                self._record_absorption()
                self._end_round()

    def _agree_on_start(self) -> Steps:
        """Begin from the oldest initial checkpoint of our task and architecture, or publish ours as the first."""
        journal, retrieval = self._journal, self._retrieval
        there = retrieval.initial_checkpoints(self.learner.architecture)
        # Ours is there when we were killed right after publishing it: the same act again only writes it to the log.
        if not there or any(knowledge.entity == self._id for knowledge in there):
            own = yield from retrieval.evaluated(journal.state.weights, stage="initial")
            if self.consents(own, 0):
                self._publish(own, "initial")
        # Asked again even so: of several that published at once, all begin from the oldest.
        if not (yield from self._adopt_start()):
            own = yield from retrieval.evaluated(journal.state.weights, stage="initial")
            if self.consents(own, 0):
                self._publish(own, "initial")
                yield from self._adopt_start()

    def _adopt_start(self) -> Generator[Work, Any, bool]:
        """Begin from the oldest sound initial checkpoint; False when there is none."""
        journal, retrieval = self._journal, self._retrieval
        for knowledge in retrieval.initial_checkpoints(self.learner.architecture):
            digest = knowledge.artifacts[WEIGHTS].digest
            if digest != Digest.of(dump(journal.state.weights)):
                teacher = retrieval.pull(knowledge)
                if teacher is None:
                    continue
                try:
                    yield from retrieval.evaluated(teacher.weights, stage="candidate", of=knowledge)
                except KnowledgeError as error:  # sound weights can still speak nonsense
                    retrieval.refuse(knowledge, error.message, 0)
                    continue
                journal.change(weights=teacher.weights)
            journal.change(origin=digest, parents=(knowledge.id,))
            return True
        return False

    def _local_phase(self) -> Steps:
        """Train on private data, guided or not, and evaluate; the state that results can be decided upon."""
        journal, retrieval = self._journal, self._retrieval
        journal.change(round=journal.state.round + 1)
        self._training = True
        journal.append("round-started", {})
        start, previous = journal.state.weights, journal.state.previous
        phase = self.strategy.local_phase()
        taught: Taught = ()
        search = self.strategy.before(self._situation(previous))
        if search is not None:
            taught = yield from retrieval.tested(self._found(search, previous), search.method)
        if taught and previous is None:
            previous = yield from retrieval.evaluated(start, stage="initial")
        guides = self._guides(phase, taught, start, previous)
        generator = journal.state.generator
        try:
            learnt: Learnt = yield training(self.learner, phase, start, generator, guides)
        except KnowledgeError as error:  # sound weights can still speak nonsense
            for one, _ in taught:
                retrieval.refuse(one.knowledge, error.message, 0)
            taught = ()
            guides = self._guides(phase, taught, start, previous)
            learnt = yield training(self.learner, phase, start, generator, guides)
        detail = {
            "samples": learnt.samples,
            "forward": learnt.forward,
            "loss": learnt.loss,
            "seconds": learnt.seconds,
        }
        journal.append("trained", detail)
        own = yield from retrieval.evaluated(learnt.weights, stage="trained")
        absorption, weights = None, learnt.weights
        if taught and previous is not None:
            outcome = yield from guided(
                self.strategy, retrieval, taught, start=start, before=previous, weights=weights, after=own
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
        self, phase: LocalPhase, taught: Taught, start: Weights, previous: Evaluation | None
    ) -> tuple[Guide, ...]:
        """Who speaks in a local phase: those that were sought, and the start model where the phase wants it."""
        guides = [Guide(teacher=teacher, recalls=_recalls(one.evaluation)) for one, teacher in taught]
        if phase.guidance and phase.guidance.own_start and previous is not None:
            own = Teacher(architecture=self.learner.architecture, weights=start)
            guides.append(Guide(teacher=own, recalls=_recalls(previous)))
        return tuple(guides)

    def _decide(self) -> Steps:
        """Publish, retrieve or rest, as the strategy says."""
        journal = self._journal
        if journal.state.absorption is not None:
            self._record_absorption()
            journal.save(absorption=None)
        own = self._own
        if self.strategy.publishes(self._situation(own)) and self.consents(own, journal.state.round):
            self._publish(own, "publish")
        search = self.strategy.after(self._situation(own))
        if search is not None:
            outcome = yield from self._retrieve(search, own)
            if outcome is not None:
                changes = {} if outcome.learnt is None else {"generator": outcome.learnt.generator}
                absorption = self._absorbed(outcome)
                journal.save(
                    stage="absorbed", weights=outcome.weights, own=outcome.own, absorption=absorption, **changes
                )
        if journal.state.stage == "trained":
            self._end_round()

    def _retrieve(self, search: Search, own: Evaluation) -> Generator[Work, Any, Outcome | None]:
        """Absorb what the search finds; None when there is nothing to absorb."""
        chosen = self._found(search, own)
        if search.method is Method.DISTIL:
            return (yield from self._distil(chosen))
        taught = yield from self._retrieval.tested(chosen, search.method)
        situation = self._situation(own)
        return (yield from merged(self.strategy, self._retrieval, situation, self._journal.state, taught))

    def _publish(self, own: Evaluation, act: str) -> None:
        """Weights to the vault first; then the record to the registry."""
        journal, state = self._journal, self._journal.state
        data = dump(state.weights)
        artifact = Artifact(digest=Digest.of(data), size=len(data))
        sent = 0
        # Entities of one seed have one initial checkpoint: only the first sends it.
        if state.round or self.vault.size(artifact.digest) is None:
            artifact, sent = self.vault.put(data), len(data)
        draft = Draft(
            entity=self._id,
            task=self.task,
            architecture=self.learner.architecture,
            artifacts={WEIGHTS: artifact},
            evaluation=own,
            round=state.round,
            parents=state.parents,
            origin=state.origin,
            sample_count=len(self.learner.private),
            class_counts=self.class_counts,
            sequence=state.published + 1,
        )
        knowledge = self.registry.publish(self._trust.signed(draft), key=journal.key(act))
        journal.change(parents=(), shared=own, published=draft.sequence)
        detail = {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": sent}
        journal.append("published", detail)

    def _found(self, search: Search, own: Evaluation | None) -> list[Knowledge]:
        """Whom the strategy chooses among what the search finds."""
        candidates = self._retrieval.candidates(search)
        self._journal.append("sought", {"candidates": len(candidates)})
        return list(self.strategy.choose(candidates, search, self._situation(own)))

    def _distil(self, chosen: list[Knowledge]) -> Generator[Work, Any, Outcome | None]:
        """Distil the first sound one of the chosen; None when there is none."""
        for knowledge in chosen:
            teacher = self._retrieval.pull(knowledge)
            if teacher is None:
                continue
            taught = Candidate(knowledge=knowledge, evaluation=knowledge.evaluation), teacher
            try:
                return (
                    yield from distilled(self.strategy, self._retrieval, self.learner, self._journal.state, taught)
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
        return outcome.absorption(self._id, state.round)

    def _record_absorption(self) -> None:
        absorption = self._journal.state.absorption
        assert absorption is not None
        delivery = absorption.delivery
        self.registry.record(delivery, key=self._journal.key(delivery.method))
        detail = {
            "teachers": delivery.teachers,
            "publishers": absorption.publishers,
            "method": delivery.method,
            "before": delivery.accuracy_before,
            "after": delivery.accuracy_after,
            "kept": delivery.kept,
            "samples": absorption.samples,
            "forward": absorption.forward,
            "seconds": absorption.seconds,
        }
        self._journal.append("absorbed", detail)

    def _end_round(self) -> None:
        journal, state = self._journal, self._journal.state
        name = self.checkpoints.save_round(state.round, state.weights)
        if self.reports:
            self.registry.report(self._id, round=state.round, evaluation=self._own)
        journal.append("round-ended", {"accuracy": self._own.accuracy, "checkpoint": name})
        journal.save(stage="ended", previous=self._own, own=None, start=None, absorption=None)

    def _log_joined(self) -> None:
        learner = self.learner
        detail = {
            "id": self._id,
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
        return Situation(
            round=state.round,
            classes=self.task.classes,
            own=own,
            previous=state.previous,
            shared=state.shared,
            samples=len(self.learner.private),
            architecture=self.learner.architecture,
            origin=state.origin,
            ages={id: state.round - first for id, first in state.seen.items()},
        )

    @property
    def _own(self) -> Evaluation:
        own = self._journal.state.own
        assert own is not None, "a state between local phase and end of round has an evaluation"
        return own


def _recalls(evaluation: Evaluation) -> tuple[float, ...]:
    return tuple(recall or 0.0 for recall in evaluation.recalls)


def drive(steps: Steps, do: Callable[[Work], Any]) -> None:
    """Run an entity to its end, each work step done by `do`; an unsound teacher is the entity's own business."""
    result: Any = None
    error: KnowledgeError | None = None
    while True:
        try:
            work = steps.send(result) if error is None else steps.throw(error)
        except StopIteration:
            return
        try:
            result, error = do(work), None
        except KnowledgeError as caught:
            result, error = None, caught
