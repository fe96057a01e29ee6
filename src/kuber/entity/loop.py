"""The loop of an entity: train, evaluate, decide, share or retrieve, round after round.

`Entity.steps` is a generator. It yields work steps (training, evaluation, distillation) and is sent their results;
between two of them it decides, on its two ports. Whoever drives it chooses where and when the work is done.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.event import Kind
from kuber.domain.knowledge import WEIGHTS, Draft, Knowledge
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Query
from kuber.domain.ranking import better, without
from kuber.domain.strategy import Move, Strategy
from kuber.domain.task import Task
from kuber.entity.checkpoint import Absorption, Keeper, State
from kuber.entity.log import Log
from kuber.entity.work import (
    Evaluated,
    Learner,
    Learnt,
    Teacher,
    Work,
    check_teachable,
    common_evaluation,
    distillation,
    training,
)
from kuber.errors import KnowledgeError
from kuber.learning.weights import Weights, dump, load

Steps = Generator[Work, Any, None]


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
        self.log = log
        self.class_counts = class_counts
        self._state = checkpoints.latest() or initial()

    @property
    def progress(self) -> float:
        """The share of its rounds that is done; within a round, half of it after the local phase."""
        state = self._state
        whole = state.round if state.stage == "ended" else state.round - 0.5
        return whole / self.rounds

    @property
    def accuracy(self) -> float:
        """On the common test set, at the end of the last round that is done; 0 before the first."""
        return self._state.previous.accuracy if self._state.previous else 0.0

    def steps(self) -> Steps:
        """Every remaining round, as work steps to be done and sent back."""
        self._id = self.registry.register(self.name).id
        if self._state.seq == 0:
            self._log_joined()
        while True:
            state = self._state
            if state.stage == "ended":
                if state.round >= self.rounds:
                    return
                yield from self._local_phase()
            elif state.stage == "trained":
                yield from self._decide()
            else:
                self._record_absorption()
                self._end_round()

    def _local_phase(self) -> Steps:
        """Train on private data and evaluate; the state that results can be decided upon."""
        state = replace(self._state, round=self._state.round + 1)
        self._state = state
        self._append("round-started", {})
        phase = self.strategy.local_phase()
        learnt: Learnt = yield training(self.learner, phase, state.weights, state.generator)
        self._append("trained", {"samples": learnt.samples, "loss": learnt.loss, "seconds": learnt.seconds})
        own = yield from self._evaluate(learnt.weights, stage="trained")
        self._save(stage="trained", weights=learnt.weights, generator=learnt.generator, own=own)

    def _decide(self) -> Steps:
        """Share, retrieve or rest, as the strategy says."""
        own = self._own
        move = self.strategy.decide(own, self._state.previous)
        if move is Move.SHARE:
            self._share(own)
        elif move is Move.RETRIEVE:
            yield from self._retrieve(own)
        if self._state.stage == "trained":
            self._end_round()

    def _share(self, own: Evaluation) -> None:
        """Weights to the vault first, then the record to the registry."""
        state = self._state
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
            sample_count=len(self.learner.private),
            class_counts=self.class_counts,
        )
        knowledge = self.registry.publish(draft, key=self._key("publish"))
        self._state = replace(state, parents=())
        self._append("published", {"knowledge": knowledge.id, "digest": str(artifact.digest), "bytes": artifact.size})

    def _retrieve(self, own: Evaluation) -> Steps:
        """Distil the best knowledge of others into the local model, if there is any that is better and sound."""
        candidates = self._candidates(own)
        self._append("sought", {"candidates": len(candidates)})
        chosen = self.strategy.choose(candidates, own)
        teachers = [(knowledge, teacher) for knowledge in chosen if (teacher := self._pull(knowledge)) is not None]
        for knowledge, teacher in teachers[:1]:
            yield from self._absorb(knowledge, teacher, own)

    def _absorb(self, knowledge: Knowledge, teacher: Teacher, own: Evaluation) -> Steps:
        """Distil, evaluate, and keep the result if the strategy says so; saved before it is recorded."""
        state = self._state
        try:
            learnt: Learnt = yield distillation(self.learner, teacher, state.weights, state.generator)
        except KnowledgeError as error:  # sound weights can still speak nonsense
            self._refuse(knowledge, error, 0)
            return
        after = yield from self._evaluate(learnt.weights, stage="absorbed")
        kept = self.strategy.keep(own, after)
        delivery = Delivery(
            student=self._id,
            teachers=(knowledge.id,),
            method="distil",
            round=state.round,
            accuracy_before=own.accuracy,
            accuracy_after=after.accuracy,
            kept=kept,
        )
        self._save(
            stage="absorbed",
            weights=learnt.weights if kept else state.weights,
            generator=learnt.generator,
            own=after if kept else own,
            parents=(*state.parents, knowledge.id) if kept else state.parents,
            absorption=Absorption(
                delivery=delivery,
                publishers=(knowledge.entity,),
                samples=learnt.samples,
                forward=learnt.forward,
                seconds=learnt.seconds,
            ),
        )

    def _candidates(self, own: Evaluation) -> list[Knowledge]:
        """Knowledge of others on our task with a higher accuracy than ours, best first, that we have not refused."""
        query = Query(
            task=self.task.name,
            test_set=self.task.test_set,
            min_accuracy=own.accuracy,
            exclude_entity=self._id,
            limit=10 + len(self._state.refused),
        )
        return without(better(self.registry.discover(query).items, own), self._state.refused)

    def _pull(self, knowledge: Knowledge) -> Teacher | None:
        """The teacher behind a record, checked; None, logged and remembered, when it is unsound."""
        received = 0
        try:
            check_teachable(knowledge, self.task)
            artifact = knowledge.artifacts[WEIGHTS]
            data = self.vault.get(artifact.digest)
            received = len(data)
            teacher = Teacher(architecture=knowledge.architecture, weights=load(data, knowledge.architecture))
        except KnowledgeError as error:
            self._refuse(knowledge, error, received)
            return None
        detail = {
            "knowledge": knowledge.id,
            "publisher": knowledge.entity,
            "accuracy": knowledge.evaluation.accuracy,
            "bytes": received,
        }
        self._append("pulled", detail)
        return teacher

    def _refuse(self, knowledge: Knowledge, error: KnowledgeError, received: int) -> None:
        """Log why a teacher is unsound, and remember not to ask for it again."""
        self._state = replace(self._state, refused=(*self._state.refused, knowledge.id))
        self._append("rejected", {"knowledge": knowledge.id, "reason": error.message, "bytes": received})

    def _record_absorption(self) -> None:
        absorption = self._state.absorption
        assert absorption is not None
        delivery = absorption.delivery
        self.registry.record(delivery, key=self._key("deliver"))
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
        self._append("absorbed", detail)

    def _evaluate(self, weights: Weights, *, stage: str) -> Generator[Work, Any, Evaluation]:
        evaluated: Evaluated = yield common_evaluation(self.learner, weights)
        evaluation = evaluated.evaluation
        detail = {
            "stage": stage,
            "correct": evaluation.correct,
            "total": evaluation.total,
            "accuracy": evaluation.accuracy,
            "seconds": evaluated.seconds,
        }
        self._append("evaluated", detail)
        return evaluation

    def _end_round(self) -> None:
        state = self._state
        name = self.checkpoints.save_round(state.round, state.weights)
        self._append("round-ended", {"accuracy": self._own.accuracy, "checkpoint": name})
        self._save(stage="ended", previous=self._own, own=None, absorption=None)

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
        self._append("joined", detail)
        self._save()

    @property
    def _own(self) -> Evaluation:
        assert self._state.own is not None, "a state between local phase and end of round has an evaluation"
        return self._state.own

    def _key(self, act: str) -> str:
        return f"{self._state.life}/{self._state.round}/{act}"

    def _append(self, kind: Kind, detail: Mapping[str, Any]) -> None:
        state = self._state
        self.log.append(entity=self.name, seq=state.seq, round=state.round, kind=kind, detail=detail)
        self._state = replace(state, seq=state.seq + 1)

    def _save(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        self.log.sync()
        self.checkpoints.save(self._state)


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
