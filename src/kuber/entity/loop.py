"""The loop of an entity: seek guides, train, evaluate, decide, share or retrieve, round after round.

`Entity.steps` is a generator. It yields work steps (training, evaluation, distillation) and is sent their results;
between two of them it decides, on its two ports. Whoever drives it chooses where and when the work is done.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft, Knowledge
from kuber.domain.ports import Registry, Vault
from kuber.domain.strategy import Candidate, LocalPhase, Method, Search, Situation, Strategy
from kuber.domain.task import Task
from kuber.entity.checkpoint import Absorption, Keeper, State
from kuber.entity.journal import Journal
from kuber.entity.log import Log
from kuber.entity.retrieval import Retrieval
from kuber.entity.work import Guide, Learner, Learnt, Teacher, Work, distillation, training
from kuber.errors import KnowledgeError
from kuber.learning.merging import average, merge
from kuber.learning.weights import Weights, dump

Steps = Generator[Work, Any, None]
Taught = Sequence[tuple[Candidate, Teacher]]


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
        initial: Callable[[], State],
    ) -> None:
        """`initial` makes the state before the first round; it is not called where a checkpoint exists."""
        self.name = name
        self.task = task
        self.learner = learner
        self.strategy = strategy
        self.rounds = rounds
        self.registry = registry
        self.vault = vault
        self.checkpoints = checkpoints
        self.class_counts = class_counts
        self._journal = Journal(name, checkpoints.latest() or initial(), checkpoints=checkpoints, log=log)

    @property
    def progress(self) -> float:
        """The share of its rounds that is done; within a round, half of it after the local phase."""
        state = self._journal.state
        whole = state.round if state.stage == "ended" else state.round - 0.5
        return whole / self.rounds

    @property
    def accuracy(self) -> float:
        """On the common test set, at the end of the last round that is done; 0 before the first."""
        previous = self._journal.state.previous
        return previous.accuracy if previous else 0.0

    def steps(self) -> Steps:
        """Every remaining round, as work steps to be done and sent back."""
        self._id = self.registry.register(self.name).id
        self._retrieval = Retrieval(
            id=self._id,
            task=self.task,
            learner=self.learner,
            registry=self.registry,
            vault=self.vault,
            journal=self._journal,
        )
        if self._journal.state.seq == 0:
            self._log_joined()
            if self.strategy.common_start:
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
        if not retrieval.initial_checkpoints(self.learner.architecture):
            own = yield from retrieval.evaluated(journal.state.weights, stage="initial")
            self._publish(own, "initial")
        # Asked again even so: of several that published at once, all begin from the oldest.
        for knowledge in retrieval.initial_checkpoints(self.learner.architecture):
            digest = knowledge.artifacts[WEIGHTS].digest
            if digest != Digest.of(dump(journal.state.weights)):
                teacher = retrieval.pull(knowledge)
                if teacher is None:
                    continue
                journal.change(weights=teacher.weights)
            journal.change(origin=digest, parents=(knowledge.id,))
            return

    def _local_phase(self) -> Steps:
        """Train on private data, guided or not, and evaluate; the state that results can be decided upon."""
        journal, retrieval = self._journal, self._retrieval
        journal.change(round=journal.state.round + 1)
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
        absorption = None
        weights = learnt.weights
        if taught and previous is not None:
            weights, own, kept = yield from self._kept_if_better(start, previous, weights, own)
            absorption = self._absorption(Method.GUIDE, taught, before=previous, after=own, kept=kept)
        journal.save(
            stage="trained",
            weights=weights,
            start=start,
            generator=learnt.generator,
            own=own,
            absorption=absorption,
        )

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
        if self.strategy.publishes(self._situation(own)):
            self._publish(own, "publish")
        search = self.strategy.after(self._situation(own))
        if search is not None:
            chosen = self._found(search, own)
            if search.method is Method.MERGE:
                yield from self._merge((yield from self._retrieval.tested(chosen, search.method)), own)
            else:
                yield from self._distil(chosen, own)
        if journal.state.stage == "trained":
            self._end_round()

    def _publish(self, own: Evaluation, act: str) -> None:
        """Weights to the vault first, then the record to the registry."""
        journal, state = self._journal, self._journal.state
        data = dump(state.weights)
        artifact = self.vault.put(data)
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
        )
        knowledge = self.registry.publish(draft, key=journal.key(act))
        journal.change(parents=(), shared=own)
        detail = {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": artifact.size}
        journal.append("published", detail)

    def _found(self, search: Search, own: Evaluation | None) -> list[Knowledge]:
        """Whom the strategy chooses among what the search finds."""
        candidates = self._retrieval.candidates(search)
        self._journal.append("sought", {"candidates": len(candidates)})
        return list(self.strategy.choose(candidates, search, self._situation(own)))

    def _distil(self, chosen: list[Knowledge], own: Evaluation) -> Steps:
        """Distil the first sound one of the chosen in epochs of its own; kept if the strategy says so."""
        journal = self._journal
        for knowledge in chosen:
            teacher = self._retrieval.pull(knowledge)
            if teacher is None:
                continue
            state = journal.state
            try:
                learnt: Learnt = yield distillation(self.learner, teacher, state.weights, state.generator)
            except KnowledgeError as error:  # sound weights can still speak nonsense
                self._retrieval.refuse(knowledge, error.message, 0)
                return
            after = yield from self._retrieval.evaluated(learnt.weights, stage="absorbed")
            kept = self.strategy.keep(own, after)
            taught = [(Candidate(knowledge=knowledge, evaluation=knowledge.evaluation), teacher)]
            absorption = self._absorption(Method.DISTIL, taught, before=own, after=after, kept=kept, learnt=learnt)
            journal.save(
                stage="absorbed",
                weights=learnt.weights if kept else state.weights,
                generator=learnt.generator,
                own=after if kept else own,
                absorption=absorption,
            )
            return

    def _merge(self, taught: Taught, own: Evaluation) -> Steps:
        """Average with the candidates; kept if it is no worse than the model that this round began with."""
        journal, state = self._journal, self._journal.state
        shares = self.strategy.shares([one for one, _ in taught], self._situation(own))
        used = [(pair, share) for pair, share in zip(taught, shares, strict=True) if share > 0]
        if not used:
            return
        models = [state.weights, *(teacher.weights for (_, teacher), _ in used)]
        merged = merge(models, [1.0, *(share for _, share in used)])
        after = yield from self._retrieval.evaluated(merged, stage="absorbed")
        start, previous = (state.start, state.previous) if state.previous else (state.weights, own)
        assert start is not None, "a state between local phase and end of round knows where it began"
        weights, result, kept = yield from self._kept_if_better(start, previous or own, merged, after)
        if not kept and own.accuracy > result.accuracy:
            weights, result = state.weights, own
        absorption = self._absorption(Method.MERGE, [pair for pair, _ in used], before=own, after=result, kept=kept)
        journal.save(stage="absorbed", weights=weights, own=result, absorption=absorption)

    def _kept_if_better(
        self, start: Weights, before: Evaluation, weights: Weights, after: Evaluation
    ) -> Generator[Work, Any, tuple[Weights, Evaluation, bool]]:
        """What stays: the new weights; else half-way to them; else those of the start, and nothing is kept."""
        if self.strategy.keep(before, after):
            return weights, after, True
        halfway = average([start, weights], [1.0, 1.0])
        evaluation = yield from self._retrieval.evaluated(halfway, stage="halfway")
        if self.strategy.keep(before, evaluation):
            return halfway, evaluation, True
        return start, before, False

    def _absorption(
        self,
        method: Method,
        taught: Taught,
        *,
        before: Evaluation,
        after: Evaluation,
        kept: bool,
        learnt: Learnt | None = None,
    ) -> Absorption:
        """What became of a delivery. When it is kept, the teachers become parents of what is published next."""
        journal = self._journal
        teachers = tuple(one.knowledge.id for one, _ in taught)
        if kept:
            journal.change(parents=tuple(dict.fromkeys((*journal.state.parents, *teachers))))
        delivery = Delivery(
            student=self._id,
            teachers=teachers,
            method=method.value,
            round=journal.state.round,
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            kept=kept,
        )
        return Absorption(
            delivery=delivery,
            publishers=tuple(one.knowledge.entity for one, _ in taught),
            samples=learnt.samples if learnt else 0,
            forward=learnt.forward if learnt else 0,
            seconds=learnt.seconds if learnt else 0.0,
        )

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
            rounds=self.rounds,
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
