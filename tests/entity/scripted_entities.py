"""Ports in memory, and entities whose work is scripted."""

import hashlib
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

import torch

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.data.batches import Normalisation
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import TensorSpec
from kuber.domain.query import Query
from kuber.domain.strategies import STRATEGIES
from kuber.domain.task import Task
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.trust import Trust
from kuber.entity.managed import ManagedEntity
from kuber.entity.state.blob_cache import BlobCache
from kuber.entity.state.checkpoint import Checkpoints, initial_state
from kuber.entity.state.event_log import FILE_NAME, EventLog, read_events
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import (
    EvaluationResult,
    TrainingResult,
    common_evaluation,
    distil_locally,
    evaluate_commonly,
)
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.losses import Distillation
from kuber.learning.runtime import Runtime
from kuber.learning.training import Training
from kuber.signing import Identity

COMMON = Digest.of(b"common test set")
TASK = Task(name="toy", labels=("a", "b", "c"), input_shape=(3,), test_set=COMMON)
ARCHITECTURE = describe("mlp", {"input_shape": (3,), "classes": 3})
ONE = TensorSpec(dtype="F32", shape=(1,))
RUNTIME = Runtime(device="cpu", precision="float32", threads=1, channels_last=False)


class Killed(BaseException):
    """The process of an entity dies: nothing of the entity may catch it."""


class Script:
    """Executes work steps without computing: each evaluation finds the next of these percentages."""

    def __init__(self, percentages=(), *, until: int = 10**6, watch=None) -> None:
        """Killed is raised in work step `until`; `watch` is called with each step, and may raise."""
        self.executed = []
        self.left = list(percentages)
        self._until = until
        self._watch = watch or (lambda work: None)

    def __call__(self, work):
        self.executed.append(work.function)
        self._watch(work)
        if work.function is evaluate_commonly:
            result = evaluation_result(self.left.pop(0))
        else:
            result = training_result(work.arguments["weights"], forward=10 if work.function is distil_locally else 0)
        if len(self.executed) == self._until:
            raise Killed
        return result


class World:
    """Ports in memory, and entities whose accuracies are written down beforehand."""

    def __init__(self, folder: Path) -> None:
        ticks = count()
        self.clock = lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks))
        ids = count(1)
        self.folder = folder
        self.vault = MemoryVault()
        self.registry = MemoryRegistry(vault=self.vault, clock=self.clock, ids=lambda: f"id{next(ids)}")
        self.log = EventLog(folder / FILE_NAME, clock=self.clock)

    def entity(self, name: str, *, rounds: int, strategy: str = "vanilla", execute=None, **more) -> ManagedEntity:
        seed = len(name)
        fields = {
            "registry": self.registry,
            "vault": self.vault,
            "checkpoints": Checkpoints(self.folder / name),
            "log": self.log,
            **{kind: BlobCache(self.folder / name / kind) for kind in ("waiting", "cache")},
        }
        return ManagedEntity(
            name,
            task=TASK,
            learner=learner(self.folder),
            strategy=STRATEGIES[strategy],
            rounds=rounds,
            class_counts=(5, 5, 0),
            identity=identity(name),
            execute=execute or Script(),
            initial=lambda: initial_state(
                life=f"life of {name}",
                weights=initial_weights(ARCHITECTURE, seed),
                generator=torch.Generator().get_state(),
            ),
            **fields | more,
        )

    def live(
        self,
        name: str,
        accuracies: list[int],
        *,
        rounds: int,
        strategy: str = "vanilla",
        until: int = 10**6,
        watch=None,
        **more,
    ):
        """Run an entity whose evaluations find these percentages, killed in work step `until`; the work it did."""
        script = Script(accuracies, until=until, watch=watch)
        try:
            self.entity(name, rounds=rounds, strategy=strategy, execute=script, **more).run()
        except Killed:
            return script.executed
        assert script.left == []
        return script.executed

    def retrieval(self, name: str, *, task: Task = TASK, verified_only: bool = False) -> Discovery:
        entity = self.entity(name, rounds=1)
        journal = entity._journal
        journal.change(member=self.id_of(name))
        return Discovery(
            task=task,
            evaluating=partial(common_evaluation, entity.learner),
            execute=Script(),
            registry=self.registry,
            vault=self.vault,
            journal=journal,
            trust=Trust(identity(name), registry=self.registry, journal=journal),
            line=entity._line,
            outbox=entity._outbox,
            verified_only=verified_only,
        )

    def id_of(self, name: str) -> str:
        """The id of the entity of this name, which joins if it has not."""
        return self.registry.register(name, public_key=identity(name).public_key).id

    def kinds(self, name: str) -> list[str]:
        return [event.kind for event in read_events(self.folder / FILE_NAME) if event.entity == name]

    def events(self, name: str, kind: str) -> list[dict]:
        events = read_events(self.folder / FILE_NAME)
        return [dict(event.detail) for event in events if (event.entity, event.kind) == (name, kind)]

    def published(self) -> list:
        return list(self.registry.discover(Query(order="newest")).items)


def identity(name: str) -> Identity:
    """The key of the entity of this name."""
    return Identity(hashlib.sha256(name.encode()).digest())


def learner(folder: Path) -> Learner:
    return Learner(
        architecture=ARCHITECTURE,
        private=Samples(folder / "none", "train", rows=torch.arange(10).numpy()),
        common=Samples(folder / "none", "test", rows=torch.arange(10).numpy()),
        test_set=COMMON,
        normalisation=Normalisation((0.0,), (1.0,)),
        flip=False,
        batch_size=2,
        training=Training(epochs=1, learning_rate=0.1),
        distillation=Distillation(epochs=1, learning_rate=0.1),
        runtime=RUNTIME,
        classes=3,
    )


def evaluation_result(percentage: int) -> EvaluationResult:
    """An evaluation with this accuracy."""
    evaluation = Evaluation(test_set=COMMON, correct=(percentage, 0, 0), total=(100, 0, 0))
    return EvaluationResult(evaluation=evaluation, seconds=0.1)


def training_result(weights, *, forward: int) -> TrainingResult:
    """As if training had moved every weight a little."""
    moved = {name: tensor + 0.5 for name, tensor in weights.items()}
    state = torch.Generator().get_state()
    return TrainingResult(weights=moved, generator=state, samples=10, forward=forward, loss=1.0, seconds=0.1)
