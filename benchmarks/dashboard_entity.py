"""An entity of a believable hub: what is kept of it, and how it tells its registry what it did."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hub_site import TEST_SET

from kuber.client.registry import HttpRegistry
from kuber.data.cifar10 import LABELS
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft
from kuber.domain.task import Task
from kuber.wire import record_bytes

TASK = Task(name="cifar10", labels=LABELS, input_shape=(3, 32, 32), test_set=TEST_SET)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An event that the registry has taken."""

    act: str  # as in the registry's events
    entity: str  # its name, or verifier, admin
    detail: Mapping[str, Any]
    at: float = field(default_factory=time.time)  # when the registry had answered, as time.time()


Act = Callable[[], Told]


@dataclass(eq=False, kw_only=True, slots=True)
class Record:
    """A published model."""

    publisher: "Entity"
    round: int
    claimed: Evaluation
    found: Evaluation  # by whoever evaluates it
    id: str = ""  # once it is published


@dataclass(eq=False, kw_only=True, slots=True)
class Entity:
    """One entity: what it is known by, how good it is, and how it tells of it."""

    name: str
    registry: HttpRegistry
    architecture: Architecture
    artifacts: tuple[Artifact, ...]
    diligence: float  # the share of the waves in which it has a round
    last: float  # round, after which it falls silent
    boasts: bool
    class_counts: tuple[int, ...] | None
    recalls: list[float]  # of its model
    alone: list[float]  # what its own data leads to
    reach: list[float]  # what teachers can lead to
    own: Evaluation
    id: str = ""
    round: int = 0
    records: list[Record] = field(default_factory=list)  # not withdrawn
    parents: list[Record] = field(default_factory=list)  # absorbed since it published last
    published: int = 0

    def enrol(self) -> Told:
        self.id = self.registry.register(self.name).id
        return Told(act="enrol", entity=self.name, detail={"id": self.id})

    def report(self, round: int, evaluation: Evaluation) -> Told:
        self.registry.report(self.id, round=round, evaluation=evaluation)
        return Told(act="report", entity=self.name, detail={"round": round, "accuracy": evaluation.accuracy})

    def publish(self, record: Record, artifact: Artifact, parents: Sequence[Record], sequence: int) -> Told:
        made = Draft(
            entity=self.id,
            task=TASK,
            architecture=self.architecture,
            artifacts={WEIGHTS: artifact},
            evaluation=record.claimed,
            round=record.round,
            parents=tuple(dict.fromkeys(one.id for one in parents)),
            sample_count=sum(self.class_counts) if self.class_counts else None,
            class_counts=self.class_counts,
            sequence=sequence,
        )
        signed = replace(made, signature=self.registry.credentials.identity.sign(record_bytes(made)))
        record.id = self.registry.publish(signed, key=f"publish/{sequence}").id
        detail = {"knowledge": record.id, "round": record.round, "accuracy": record.claimed.accuracy}
        return Told(act="publish", entity=self.name, detail=detail)

    def deliver(self, teachers: Sequence[Record], *, attests: bool, reason: str, **told: Any) -> Told:
        if attests:
            self.registry.attest(teachers[0].id, entity=self.id, evaluation=teachers[0].found)
        told |= {"reason": reason}
        delivery = Delivery(student=self.id, teachers=tuple(one.id for one in teachers), **told)
        self.registry.record(delivery, key=f"{delivery.round}/{delivery.method}")
        return Told(act="deliver", entity=self.name, detail={"teachers": delivery.teachers, **told})

    def withdraw(self, record: Record) -> Told:
        self.registry.withdraw(record.id)
        return Told(act="withdraw", entity=self.name, detail={"knowledge": record.id})
