"""An entity of a synthetic hub: its state, and the requests it sends to the registry."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub_site import TEST_SET

from kuber.client.record_signature import sign
from kuber.client.registry import HttpRegistry
from kuber.data.cifar10 import LABELS
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft
from kuber.domain.task import Task

TASK = Task(name="cifar10", labels=LABELS, input_shape=(3, 32, 32), test_set=TEST_SET)


@dataclass(frozen=True, kw_only=True, slots=True)
class SentEvent:
    """An event that the registry has accepted."""

    act: str  # as in the registry's events
    entity: str  # its name, or verifier, admin
    detail: Mapping[str, Any]
    at: float = field(default_factory=time.time)  # time of the registry's response, as time.time()


Act = Callable[[], SentEvent]


@dataclass(eq=False, kw_only=True, slots=True)
class Record:
    """A published model."""

    publisher: "Entity"
    round: int
    claimed: Evaluation
    found: Evaluation  # by an entity or the hub
    id: str = ""  # set by its publication


@dataclass(eq=False, kw_only=True, slots=True)
class Entity:
    """One entity: its identity, its accuracy, and its requests."""

    name: str
    registry: HttpRegistry
    architecture: Architecture
    artifacts: tuple[Artifact, ...]
    diligence: float  # share of the waves in which it has a round
    last: float  # its last round
    boasts: bool
    class_counts: tuple[int, ...] | None
    recalls: list[float]  # of its model
    alone: list[float]  # recalls that its own data lead to
    reach: list[float]  # recalls that teachers can lead to
    own: Evaluation
    id: str = ""
    round: int = 0
    records: list[Record] = field(default_factory=list)  # not withdrawn
    parents: list[Record] = field(default_factory=list)  # absorbed since its last publication
    published: int = 0

    def enrol(self) -> SentEvent:
        self.id = self.registry.register(self.name).id
        return SentEvent(act="enrol", entity=self.name, detail={"id": self.id})

    def report(self, round: int, evaluation: Evaluation) -> SentEvent:
        self.registry.report(self.id, round=round, evaluation=evaluation)
        return SentEvent(act="report", entity=self.name, detail={"round": round, "accuracy": evaluation.accuracy})

    def publish(self, record: Record, artifact: Artifact, parents: Sequence[Record], sequence: int) -> SentEvent:
        made = Draft(
            entity=self.id,
            task=TASK,
            architecture=self.architecture,
            artifacts={WEIGHTS: artifact},
            evaluation=record.claimed,
            round=record.round,
            parents=tuple(dict.fromkeys(parent.id for parent in parents)),
            sample_count=sum(self.class_counts) if self.class_counts else None,
            class_counts=self.class_counts,
            sequence=sequence,
        )
        signed = sign(made, self.registry.credentials.identity, hub=self.registry.hub_id())
        record.id = self.registry.publish(signed, key=f"publish/{sequence}").id
        detail = {"knowledge": record.id, "round": record.round, "accuracy": record.claimed.accuracy}
        return SentEvent(act="publish", entity=self.name, detail=detail)

    def deliver(self, teachers: Sequence[Record], *, attests: bool, reason: str, **detail: Any) -> SentEvent:
        if attests:
            self.registry.attest(teachers[0].id, entity=self.id, evaluation=teachers[0].found)
        detail |= {"reason": reason}
        delivery = Delivery(student=self.id, teachers=tuple(teacher.id for teacher in teachers), **detail)
        self.registry.record(delivery, key=f"{delivery.round}/{delivery.method}")
        return SentEvent(act="deliver", entity=self.name, detail={"teachers": delivery.teachers, **detail})

    def withdraw(self, record: Record) -> SentEvent:
        self.registry.withdraw(record.id)
        return SentEvent(act="withdraw", entity=self.name, detail={"knowledge": record.id})
