"""The state of a hub, computed from the events of its registry."""

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from kuber.domain.auth import RELEASED, AuditEntry
from kuber.domain.verification import Standing
from kuber.views.delivery import HubDelivery
from kuber.views.formatting import natural
from kuber.views.record_table import HubRecord

ONLINE = timedelta(minutes=5)  # an entity without an event for longer than this counts as offline
MAX_DELIVERIES = 20_000  # kept; counts include older ones
MAX_TEACHERS = 200_000  # of the kept deliveries
MAX_POINTS = 500  # accuracies, and marks, kept for each entity
MAX_CLASSES = 1000  # of a reported evaluation; with more, only the accuracy is kept


@dataclass(frozen=True, kw_only=True, slots=True)
class HubMark:
    """A mark on an entity's curve: it published a model, or absorbed knowledge."""

    time: datetime
    kind: Literal["published", "kept", "undone"]
    accuracy: float  # claimed for the published model, or after the delivery


@dataclass
class HubEntity:
    """One entity of a hub, as described by its events."""

    id: str
    name: str
    joined: datetime
    seen: datetime  # time of its latest event
    round: int = 0
    accuracy: float | None = None  # latest reported, 0 to 1
    correct: tuple[int, ...] = ()  # counts of that evaluation, per class
    total: tuple[int, ...] = ()
    curve: deque[tuple[datetime, int, float]] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    marks: deque[HubMark] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    newest: str | None = None  # id of its latest record
    published: int = 0
    absorbed: int = 0  # deliveries whose result it kept
    declined: int = 0  # deliveries whose result it did not keep
    taught: int = 0  # kept deliveries of others in which its knowledge took part
    gained: float = 0.0  # sum over its kept deliveries, accuracy after minus before
    gave: float = 0.0  # its equal shares of what the deliveries that it taught brought

    def online(self, now: datetime) -> bool:
        """Whether its latest event is recent."""
        return now - self.seen < ONLINE


@dataclass
class HubView:
    """The state of a hub after the applied events. Unknown acts and missing details are ignored."""

    entities: dict[str, HubEntity] = field(default_factory=dict)  # id -> entity, in the order of joining
    records: dict[str, HubRecord] = field(default_factory=dict)  # knowledge id -> record, in the order of publication
    deliveries: deque[HubDelivery] = field(default_factory=deque)  # the latest
    teachers: int = 0  # of those deliveries
    taught: Counter[tuple[str, str]] = field(default_factory=Counter)  # (teacher, student) -> kept deliveries
    delivered: int = 0
    kept: int = 0
    bytes: int = 0  # of all published blobs
    last: int = 0  # number of the last event
    missed_until: datetime | None = None  # time of the last event that the hub has removed because of its age

    def apply(self, number: int, entry: AuditEntry) -> None:
        """Apply the event with this number; ignore it if it was applied before."""
        if number <= self.last:
            return
        self.last = number
        if entry.act == "enrol":
            name = entry.subject if entry.subject.strip() else entry.actor  # a blank name would be invisible
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
            test_set=detail.get("test_set", ""),
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
        record.judgements += 1
        if entry.act == "withdraw":
            record.withdrawn = True
        elif entry.act == RELEASED:
            standing = entry.detail.get("standing")
            record.standing = Standing(standing) if standing else None
            if record.standing is None:  # the verifier's finding is withdrawn with its quarantine
                record.found = None
        else:
            record.standing = Standing(entry.act)
            record.found = entry.detail.get("accuracy", record.found)

    def _deliver(self, number: int, entity: HubEntity | None, entry: AuditEntry) -> None:
        self.delivered += 1
        detail = entry.detail
        if "teachers" not in detail or entity is None:  # registries of older versions recorded no details
            return
        publishers = dict.fromkeys(self.records[id].publisher for id in detail["teachers"] if id in self.records)
        # The same texts as in the records, not copies of each.
        teachers = tuple(self.records[id].id if id in self.records else id for id in detail["teachers"])
        delivery = HubDelivery(
            number=number,
            time=entry.time,
            student=entity.id,
            publishers=tuple(publishers),
            teachers=teachers,
            method=detail["method"],
            round=detail["round"],
            before=detail["accuracy_before"],
            after=detail["accuracy_after"],
            kept=detail["kept"],
            reason=detail.get("reason"),
        )
        self._keep(delivery)
        mark = HubMark(time=entry.time, kind="kept" if delivery.kept else "undone", accuracy=delivery.after)
        entity.marks.append(mark)
        entity.round = max(entity.round, delivery.round)
        if not delivery.kept:
            entity.declined += 1
            return
        self.kept += 1
        entity.absorbed += 1
        entity.gained += delivery.after - delivery.before
        for publisher in delivery.publishers:
            self.taught[publisher, entity.id] += 1
            if publisher in self.entities:
                self.entities[publisher].taught += 1
                self.entities[publisher].gave += delivery.share

    def _keep(self, delivery: HubDelivery) -> None:
        """Keep a delivery, and drop the oldest of too many."""
        self.deliveries.append(delivery)
        self.teachers += len(delivery.teachers)
        while len(self.deliveries) > MAX_DELIVERIES or self.teachers > MAX_TEACHERS:
            self.teachers -= len(self.deliveries.popleft().teachers)

    def name_of(self, id: str) -> str:
        """Return the name of the entity with this id, or the id itself if it is unknown."""
        return self.entities[id].name if id in self.entities else id

    @property
    def names(self) -> dict[str, str]:
        """Entity id -> name, in the order of the names."""
        return {e.id: e.name for e in sorted(self.entities.values(), key=lambda e: natural(e.name))}

    def ranked(self, now: datetime) -> list[HubEntity]:
        """Return the online entities, then the others, each in the order of their names."""
        return sorted(self.entities.values(), key=lambda e: (not e.online(now), natural(e.name)))

    @property
    def discoverable(self) -> int:
        """The number of records that are neither withdrawn nor quarantined."""
        return sum(record.is_discoverable for record in self.records.values())


def _report(entity: HubEntity, entry: AuditEntry) -> None:
    entity.round = entry.detail.get("round", entity.round)
    counts = entry.detail.get("total", ())
    total = sum(counts)
    if total:
        by_class = 1 < len(counts) <= MAX_CLASSES  # one class: the sums over too many
        entity.correct = tuple(entry.detail["correct"]) if by_class else ()
        entity.total = tuple(counts) if by_class else ()
        entity.accuracy = sum(entry.detail["correct"]) / total
        entity.curve.append((entry.time, entity.round, entity.accuracy))
