"""Scripted entities: ports in memory, and work steps that compute nothing."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import torch

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.data.batches import Normalisation
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, TensorSpec
from kuber.domain.query import Query
from kuber.domain.strategies import STRATEGIES
from kuber.domain.task import Task
from kuber.entity.clock import Clock
from kuber.entity.hub.access import HubAccess, Sharing
from kuber.entity.hub.discovery import Discovery
from kuber.entity.managed import ManagedEntity
from kuber.entity.managed_model import ManagedModel
from kuber.entity.state.blob_cache import BlobCache
from kuber.entity.state.checkpoint import Checkpoints, initial_state
from kuber.entity.state.event_log import FILE_NAME, EventLog, read_events, rewind
from kuber.entity.state.storage import Storage
from kuber.entity.work.average import AverageResult, average_on_common_set
from kuber.entity.work.learner import Learner
from kuber.entity.work.pair import PairResult, choose_share
from kuber.entity.work.personal import PersonalResult, personalise
from kuber.entity.work.steps import EvaluationResult, TrainingResult, distil_locally, evaluate_on_common_set
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.losses import Distillation
from kuber.learning.merging import merge
from kuber.learning.runtime import Runtime
from kuber.learning.training import Training
from kuber.signing import Identity

COMMON = Digest.of(b"common test set")
TASK = Task(name="toy", labels=("a", "b", "c"), input_shape=(3,), test_set=COMMON)
ARCHITECTURE = describe("mlp", {"input_shape": (3,), "classes": 3})
SCALAR = TensorSpec(dtype="F32", shape=(1,))
PRIVATE = Architecture(name="mine", arguments={}, manifest={"own": SCALAR})  # of private networks
RUNTIME = Runtime(device="cpu", precision="float32", threads=1, channels_last=False)


class Killed(BaseException):
    """The process of an entity is killed: no code of the entity may catch it."""


class Script:
    """Executes work steps without computing: each evaluation finds the next of these percentages."""

    def __init__(self, percentages=(), *, until: int = 10**6, watch=None) -> None:
        """Killed is raised in work step `until`; `watch` is called with each step, and may raise.

        An average of rounds is never better than these, nor is a personal head; they are no steps of the rounds.
        """
        self.executed = []
        self.left = list(percentages)
        self._until = until
        self._watch = watch or (lambda work: None)

    def __call__(self, work):
        if work.function is average_on_common_set:
            return average_result(work.arguments["models"], 0)
        if work.function is choose_share:
            return PairResult(
                share=0.25, accuracy=0.9, own_accuracy=0.9, private_accuracy=0.8, forward=20, seconds=0.1
            )
        if work.function is personalise:
            return PersonalResult(weights=None, before=0.5, after=0.5, forward=0, seconds=0.0)
        if "shift" in work.arguments:
            return evaluation_result(0)  # no teacher is better without its prior
        self.executed.append(work.function)
        self._watch(work)
        if work.function is evaluate_on_common_set:
            result = evaluation_result(self.left.pop(0))
        else:
            result = training_result(work.arguments["weights"], forward=10 if work.function is distil_locally else 0)
        if len(self.executed) == self._until:
            raise Killed
        return result


class World:
    """Ports in memory, and entities whose accuracies are given beforehand."""

    def __init__(self, folder: Path) -> None:
        ticks = count()
        self.clock = lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(ticks))
        ids = count(1)
        self.folder = folder
        self.vault = MemoryVault()
        self.registry = MemoryRegistry(vault=self.vault, clock=self.clock, ids=lambda: f"id{next(ids)}")
        self.log = EventLog(folder / FILE_NAME, clock=self.clock)

    def entity(
        self,
        name: str,
        *,
        rounds: int,
        strategy="vanilla",
        execute=None,
        task: Task = TASK,
        registry=None,
        vault=None,
        storage: dict | None = None,
        background: bool = False,
        starts=(),
        clock=None,
        private: bool = False,
        **sharing,
    ) -> ManagedEntity:
        """An entity whose storage is in its folder, except for the parts given in `storage`.

        It may begin from the `starts`, and has other initial weights than entities with names of other lengths. With
        `private` its model is the proxy of a private network.
        """
        parts = {
            "checkpoints": Checkpoints(self.folder / name),
            "event_log": self.log,
            "pending": BlobCache(self.folder / name / "waiting"),
            "cache": BlobCache(self.folder / name / "cache"),
        }
        model = ManagedModel(
            task=task, learner=learner(self.folder), class_counts=(5, 5, 0), execute=execute or Script()
        )
        own = replace(model, learner=replace(model.learner, architecture=PRIVATE)) if private else None
        return ManagedEntity(
            name,
            model=replace(model, proxy_of=own and PRIVATE.name),
            strategy=STRATEGIES[strategy] if isinstance(strategy, str) else strategy,
            rounds=rounds,
            hub=HubAccess(
                registry=registry or self.registry,
                vault=vault or self.vault,
                identity=identity(name),
                background=background,
                clock=clock or Clock(),
            ),
            storage=Storage(**parts | (storage or {})),
            initial=lambda: replace(
                initial_state(
                    session_id=f"session of {name}",
                    weights=initial_weights(ARCHITECTURE, len(name)),
                    generator=torch.Generator().get_state(),
                ),
                private={"own": torch.zeros(1)} if private else None,
                private_generator=torch.Generator().manual_seed(1).get_state() if private else None,
            ),
            private=own,
            starts=lambda: starts,
            sharing=Sharing(**sharing),
        )

    def live(self, name: str, accuracies: list[int], *, rounds: int, until: int = 10**6, watch=None, **more):
        """Run an entity whose evaluations find these percentages, killed in work step `until`; the work it did."""
        script = Script(accuracies, until=until, watch=watch)
        try:
            self.entity(name, rounds=rounds, execute=script, **more).run()
        except Killed:
            return script.executed
        assert script.left == []
        return script.executed

    def restart(self, name: str) -> None:
        """Put the log into the state in which the next process of this entity finds it."""
        state = Checkpoints(self.folder / name).latest()
        others = {event.entity: 10**6 for event in read_events(self.folder / FILE_NAME)}
        rewind(self.folder / FILE_NAME, reached={**others, name: state.next_event if state else 0})
        self.log = EventLog(self.folder / FILE_NAME, clock=self.clock)

    def discovery(self, name: str, **more) -> Discovery:
        """The discovery of an entity that has joined."""
        entity = self.entity(name, rounds=1, **more)
        entity._journal.change(entity_id=self.id_of(name))
        return entity._session.discovery

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
        training=Training(epochs=1, learning_rate=0.1, schedule="cosine"),
        distillation=Distillation(epochs=1, learning_rate=0.1, schedule="cosine"),
        runtime=RUNTIME,
        classes=3,
    )


def evaluation_result(percentage: int) -> EvaluationResult:
    """An evaluation with this accuracy."""
    evaluation = Evaluation(test_set=COMMON, correct=(percentage, 0, 0), total=(100, 0, 0))
    return EvaluationResult(evaluation=evaluation, seconds=0.1)


def average_result(models, percentage: int) -> AverageResult:
    """An average that answers this share of the common test set."""
    return AverageResult(
        weights=merge(models, [1.0] * len(models)), evaluation=evaluation_result(percentage).evaluation, seconds=0.1
    )


def training_result(weights, *, forward: int) -> TrainingResult:
    """A result as if training had moved every weight a little."""
    moved = {name: tensor + 0.5 for name, tensor in weights.items()}
    state = torch.Generator().get_state()
    return TrainingResult(weights=moved, generator=state, samples=10, forward=forward, loss=1.0, seconds=0.1)
