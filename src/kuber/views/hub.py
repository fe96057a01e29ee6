"""What a hub looks like at one moment, made from the events that its registry tells every entity."""

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from kuber.domain.auth import RELEASED, AuditEntry
from kuber.domain.verification import Standing
from kuber.views.delivery import HubDelivery
from kuber.views.formatting import natural
from kuber.views.record_table import HubRecord

ONLINE = timedelta(minutes=5)  # without a word for longer than this, an entity counts as away
LATEST = 20_000  # deliveries that are remembered whole
CURVE = 500  # accuracies, and marks, of one entity that are remembered


@dataclass(frozen=True, kw_only=True, slots=True)
class HubMark:
    """A moment at which an entity published, or absorbed something."""

    time: datetime
    kind: Literal["published", "kept", "undone"]
    accuracy: float  # claimed of what it published; after the absorption


@dataclass
class HubEntity:
    """One entity of a hub, as far as it told."""

    id: str
    name: str
    joined: datetime
    seen: datetime  # when it last did something
    round: int = 0
    accuracy: float | None = None  # the latest that it told of, 0 to 1
    correct: tuple[int, ...] = ()  # of that evaluation, a class each
    total: tuple[int, ...] = ()
    curve: deque[tuple[datetime, int, float]] = field(default_factory=lambda: deque(maxlen=CURVE))
    marks: deque[HubMark] = field(default_factory=lambda: deque(maxlen=CURVE))
    newest: str | None = None  # id of the record that it published last
    published: int = 0
    absorbed: int = 0  # deliveries whose result it kept
    declined: int = 0  # deliveries whose result it did not keep
    taught: int = 0  # kept deliveries of others in which its knowledge took part
    gained: float = 0.0  # sum over kept deliveries, after less before
    gave: float = 0.0  # the same of those that it taught, shared equally among the teachers

    def online(self, now: datetime) -> bool:
        """Whether it did something lately."""
        return now - self.seen < ONLINE


@dataclass
class HubView:
    """A hub after the events that were applied. Unknown acts and details that are missing are passed over."""

    entities: dict[str, HubEntity] = field(default_factory=dict)  # id -> entity, first come first
    records: dict[str, HubRecord] = field(default_factory=dict)  # knowledge id -> record, first come first
    deliveries: deque[HubDelivery] = field(default_factory=lambda: deque(maxlen=LATEST))  # the latest
    taught: Counter[tuple[str, str]] = field(default_factory=Counter)  # (teacher, student) -> kept deliveries
    delivered: int = 0
    kept: int = 0
    bytes: int = 0  # of all that was published
    last: int = 0  # number of the last event

    def apply(self, number: int, entry: AuditEntry) -> None:
        """Take in the event with this number; one that was taken in before changes nothing."""
        if number <= self.last:
            return
        self.last = number
        if entry.act == "enrol":
            name = entry.subject if entry.subject.strip() else entry.actor  # blanks could be seen by nobody
            self.entities[entry.actor] = HubEntity(id=entry.actor, name=name, joined=entry.time, seen=entry.time)
            return
        entity = self.entities.get(entry.actor)
        if entity is not None:
            entity.seen = max(entity.seen, entry.time)
        match entry.act:
            case "publish":
                self._publish(entity, entry)
            case "deliver":
                self._deliver(number, entity, entry)
            case "report" if entity is not None:
                _report(entity, entry)
            case "withdraw" | "verified" | "unverifiable" | "quarantined" | "released":
                self._judge(entry)

    def _publish(self, entity: HubEntity | None, entry: AuditEntry) -> None:
        detail = entry.detail
        record = HubRecord(
            id=entry.subject,
            publisher=entry.actor,
            name=self.name_of(entry.actor),
            time=entry.time,
            round=detail.get("round", 0),
            claimed=detail.get("accuracy"),
            task=detail.get("task", ""),
            architecture=detail.get("architecture", ""),
            bytes=detail.get("bytes", 0),
        )
        self.records[record.id] = record
        self.bytes += record.bytes
        if entity is not None:
            entity.published += 1
            entity.newest = record.id
            entity.round = max(entity.round, record.round)
            if record.claimed is not None:
                entity.marks.append(HubMark(time=entry.time, kind="published", accuracy=record.claimed))

    def _judge(self, entry: AuditEntry) -> None:
        record = self.records.get(entry.subject)
        if record is None:
            return
        record.judged += 1
        if entry.act == "withdraw":
            record.withdrawn = True
        elif entry.act == RELEASED:
            told = entry.detail.get("standing")
            record.standing = Standing(told) if told else None
            if record.standing is None:  # what the verifier had found is gone with its quarantine
                record.found = None
        else:
            record.standing = Standing(entry.act)
            record.found = entry.detail.get("accuracy", record.found)

    def _deliver(self, number: int, entity: HubEntity | None, entry: AuditEntry) -> None:
        self.delivered += 1
        detail = entry.detail
        if "teachers" not in detail or entity is None:  # told by a registry of before there were details
            return
        told = HubDelivery(
            number=number,
            time=entry.time,
            student=entity.id,
            publishers=tuple(
                dict.fromkeys(self.records[one].publisher for one in detail["teachers"] if one in self.records)
            ),
            teachers=tuple(detail["teachers"]),
            method=detail["method"],
            round=detail["round"],
            before=detail["accuracy_before"],
            after=detail["accuracy_after"],
            kept=detail["kept"],
            reason=detail.get("reason"),
        )
        self.deliveries.append(told)
        entity.marks.append(HubMark(time=entry.time, kind="kept" if told.kept else "undone", accuracy=told.after))
        entity.round = max(entity.round, told.round)
        if not told.kept:
            entity.declined += 1
            return
        self.kept += 1
        entity.absorbed += 1
        entity.gained += told.after - told.before
        for publisher in told.publishers:
            self.taught[publisher, entity.id] += 1
            if publisher in self.entities:
                self.entities[publisher].taught += 1
                self.entities[publisher].gave += told.share

    def name_of(self, id: str) -> str:
        """The name of the entity with this id; the id itself when it is not known."""
        return self.entities[id].name if id in self.entities else id

    @property
    def names(self) -> dict[str, str]:
        """Entity id -> name, in the order of the names."""
        return {one.id: one.name for one in sorted(self.entities.values(), key=lambda one: natural(one.name))}

    def ranked(self, now: datetime) -> list[HubEntity]:
        """Those that are online, then the others; in the order of their names."""
        return sorted(self.entities.values(), key=lambda one: (not one.online(now), natural(one.name)))

    @property
    def shelved(self) -> int:
        """How many records can be found: published, and neither withdrawn nor quarantined."""
        return sum(one.found_by_others for one in self.records.values())


def _report(entity: HubEntity, entry: AuditEntry) -> None:
    entity.round = entry.detail.get("round", entity.round)
    total = sum(entry.detail.get("total", ()))
    if total:
        entity.correct, entity.total = tuple(entry.detail["correct"]), tuple(entry.detail["total"])
        entity.accuracy = sum(entity.correct) / total
        entity.curve.append((entry.time, entity.round, entity.accuracy))
