"""The state of a run, computed from its events; terminal, plots and report show the same."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from kuber.domain.deployment import Choice
from kuber.domain.evaluation import recalls_of
from kuber.domain.event import Event
from kuber.views.delivery import DeliveryView
from kuber.views.formatting import natural

Working = Literal[
    "joining", "waiting", "training", "evaluating", "deciding", "publishing", "discovering", "distilling"
]
State = Literal[Working, "done", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveMark:
    """A mark on an entity's curve: it published its model, or a delivery took place."""

    round: int
    accuracy: float  # on the common test set, after it; 0 to 1
    kind: Literal["published", "delivery"]
    publisher: str | None  # entity id of the teacher's publisher; None for "published"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployedView:
    """The model that an entity would use at the end of a round."""

    model: Choice
    round: int  # at whose end it was made
    accuracy: float  # on the common test set, 0 to 1
    checkpoint: str | None  # its file in the entity's folder
    personal: str | None = None  # that of the model with a personal head; None if it has none
    private: str | None = None  # that of the private network, of which the model is the proxy; None without one
    share: float | None = None  # of the proxy in the mean of both networks' probabilities

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> Self:
        """Return the field `deployed` of an event `round-ended`."""
        known = {name: detail[name] for name in ("model", "round", "accuracy", "checkpoint")}
        return cls(**known, personal=detail.get("personal"), private=detail.get("private"), share=detail.get("share"))


@dataclass
class Stopwatch:
    """The active time of a run: the sum of its sessions, without the pauses between them.

    A session begins with `run-started` (in the log of `kuber entity`, with its first event) and ends with
    `run-ended`; a killed session ends with its last event.
    """

    _earlier: float = 0.0  # seconds of the sessions that have ended
    _start: datetime | None = None
    _last: datetime | None = None

    def apply(self, event: Event) -> None:
        if event.kind == "run-started" or self._start is None:
            self._earlier = self.seconds()
            self._start = self._last = event.time
        assert self._last is not None
        self._last = max(self._last, event.time)
        if event.kind == "run-ended":
            self._earlier, self._start = self.seconds(), None

    def seconds(self, now: datetime | None = None) -> float:
        """Return the active seconds until `now`, by default until the last event."""
        until = now or self._last
        if self._start is None or until is None:
            return self._earlier
        return self._earlier + max(0.0, (until - self._start).total_seconds())


@dataclass
class EntityView:
    """One entity of a run."""

    name: str
    rounds: int  # of a complete run
    id: str | None = None  # given by the registry
    state: State = "joining"
    round: int = 0  # the latest it has begun
    samples: int = 0  # private
    class_counts: tuple[int, ...] = ()
    architecture: str | None = None
    device: str | None = None
    precision: str | None = None
    accuracy: float | None = None  # latest on the common test set, 0 to 1
    history: list[tuple[int, float]] = field(default_factory=list)  # (round, that accuracy at its end)
    deployed: dict[int, DeployedView] = field(default_factory=dict)  # by round; older logs lack it
    recalls: tuple[float | None, ...] = ()  # per class on the common test set, at the end of the latest round
    marks: list[CurveMark] = field(default_factory=list)
    deliveries: list[DeliveryView] = field(default_factory=list)
    published: int = 0
    records: dict[str, int] = field(default_factory=dict)  # knowledge id -> round of publication
    absorbed: int = 0  # deliveries whose result was kept
    rejected: int = 0  # refused teachers, and deliveries whose result was not kept
    bytes_up: int = 0
    bytes_down: int = 0
    samples_trained: int = 0  # forward, backward and step: local phases and distillations
    samples_forward: int = 0  # forward only: teachers and evaluations on the common test set
    changed: datetime | None = None  # time of the latest event
    began_at: float | None = None  # active seconds of the run when the first round began
    ends: list[float] = field(default_factory=list)  # active seconds when each round ended
    # Accuracy -> recalls of the entity's own models: at the end of its latest round, and since.
    _recalls: dict[float, tuple[float | None, ...]] = field(default_factory=dict)

    def apply(self, event: Event, at: float) -> None:
        """Apply one event of this entity, which happened `at` so many active seconds of the run."""
        detail = event.detail
        self.round = event.round
        self.changed = event.time
        match event.kind:
            case "joined":
                self._join(event)
            case "round-started":
                self.state = "training"
                self.began_at = at if self.began_at is None else self.began_at
            case "private-trained":
                self.samples_trained += detail["samples"]
                self.samples_forward += detail["forward"]
            case "trained":
                self.state = "evaluating"
                self.samples_trained += detail["samples"]
                self.samples_forward += detail.get("forward", 0)  # older logs lack it
            case "evaluated":
                self.state = "deciding"
                if "knowledge" not in detail:  # else it is the model of another entity
                    self.accuracy = detail["accuracy"]
                    if detail["stage"] != "narrowed":  # else it is the bfloat16 copy that is published
                        self._recalls[detail["accuracy"]] = recalls_of(detail["correct"], detail["total"])
                self.samples_forward += sum(detail["total"])
            case "published":
                self.state = "publishing"
                self.bytes_up += detail["bytes"]
                if detail["knowledge"] not in self.records:  # else it was published again after a crash
                    self.published += 1
                    self.records[detail["knowledge"]] = event.round
                    assert self.accuracy is not None, "an entity evaluates before it publishes"
                    mark = CurveMark(round=event.round, accuracy=self.accuracy, kind="published", publisher=None)
                    self.marks.append(mark)
            case "sought":
                self.state = "discovering"
            case "pulled":
                self.state = "distilling"
                self.bytes_down += detail["bytes"]
            case "rejected":
                self.rejected += 1
                self.bytes_down += detail["bytes"]
            case "absorbed":
                self._absorb(event)
            case "stopped":
                self.state = "stopped"
            case "resumed":
                self.state = "waiting"
            case "round-ended":
                self.state = "done" if event.round >= self.rounds else "waiting"
                self.accuracy = detail["accuracy"]
                self.history.append((event.round, self.accuracy))
                # The model kept is one of those evaluated since the last round ended, or the model of that time.
                self.recalls = self._recalls.get(self.accuracy, ())
                self._recalls = {self.accuracy: self.recalls}
                self.ends.append(at)
                self._deploy(event)

    @property
    def ended_at(self) -> float | None:
        """Active seconds of the run when the latest round ended."""
        return self.ends[-1] if self.ends else None

    def _join(self, event: Event) -> None:
        detail = event.detail
        self.state = "waiting"
        self.id = detail["id"]
        self.samples = detail["samples"]
        self.class_counts = tuple(detail["class_counts"])
        self.architecture = detail["architecture"]
        self.device = detail["device"]
        self.precision = detail["precision"]

    def _deploy(self, event: Event) -> None:
        detail = event.detail.get("deployed")
        if detail is None:
            return
        self.deployed[event.round] = DeployedView.of(detail)
        self.samples_forward += detail["forward"]

    def _absorb(self, event: Event) -> None:
        detail = event.detail
        delivery = DeliveryView(
            round=event.round,
            student=self.name,
            publishers=tuple(detail["publishers"]),
            teachers=tuple(detail["teachers"]),
            method=detail["method"],
            before=detail["before"],
            after=detail["after"],
            kept=detail["kept"],
            reason=detail.get("reason"),
        )
        self.state = "deciding"
        if self.deliveries and self.deliveries[-1] == delivery:  # logged again after a crash
            return
        self.deliveries.append(delivery)
        self.absorbed += delivery.kept
        self.rejected += not delivery.kept
        self.samples_trained += detail["samples"]
        self.samples_forward += detail["forward"]
        self.accuracy = delivery.after if delivery.kept else delivery.before
        self.marks.extend(
            CurveMark(round=event.round, accuracy=self.accuracy, kind="delivery", publisher=publisher)
            for publisher in delivery.publishers
        )


@dataclass
class RunView:
    """Every entity of a run, by name and in the order of their names."""

    rounds: int  # of each entity in a complete run
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    status: Literal["running", "completed", "interrupted", "failed"] = "running"
    message: str | None = None  # why it failed
    _found: dict[str, EntityView] = field(default_factory=dict)
    _in_order: bool = True  # whether `_found` is sorted

    @classmethod
    def of(cls, events: Iterable[Event], *, rounds: int) -> Self:
        """Return the view after these events."""
        view = cls(rounds=rounds)
        for event in events:
            view.apply(event)
        return view

    @property
    def entities(self) -> dict[str, EntityView]:
        """The entities that have joined, by name and sorted; sorted lazily because thousands may join."""
        if not self._in_order:
            self._found = dict(sorted(self._found.items(), key=lambda item: natural(item[0])))
            self._in_order = True
        return self._found

    def entity(self, name: str) -> EntityView:
        """Return the entity of this name. Raises KeyError if it has not joined."""
        return self._found[name]

    def apply(self, event: Event) -> None:
        """Apply the next event of the log."""
        self.stopwatch.apply(event)
        if event.entity is None:
            self._apply_run(event)
            return
        if event.entity not in self._found:
            self._found[event.entity] = EntityView(name=event.entity, rounds=self.rounds)
            self._in_order = False
        self._found[event.entity].apply(event, self.stopwatch.seconds(event.time))

    def _apply_run(self, event: Event) -> None:
        started = event.kind == "run-started"
        self.status = "running" if started else event.detail["status"]
        self.message = None if started else event.detail["message"]
        state: State = "waiting" if started else "failed" if self.status == "failed" else "stopped"
        for entity in self._found.values():
            if entity.state != "done":
                entity.state = state

    @property
    def deliveries(self) -> list[DeliveryView]:
        """Every delivery, sorted by round, then by student."""
        found = [delivery for entity in self.entities.values() for delivery in entity.deliveries]
        return sorted(found, key=lambda delivery: (delivery.round, natural(delivery.student)))

    @property
    def taught(self) -> Counter[tuple[str, str]]:
        """(teacher, student), by name -> number of kept deliveries."""
        names = {entity.id: entity.name for entity in self.entities.values()}
        return Counter(
            (names.get(publisher, publisher), delivery.student)
            for delivery in self.deliveries
            if delivery.kept
            for publisher in delivery.publishers
        )

    def name_of(self, id: str) -> str:
        """Return the name of the entity with this id, or the id itself if it is not in this log."""
        return next((entity.name for entity in self.entities.values() if entity.id == id), id)

    def eta(self, name: str, now: datetime) -> float | None:
        """Estimate the seconds until this entity is done from its past rounds; None before its first round ends."""
        entity = self.entities[name]
        if entity.ended_at is None or entity.began_at is None:
            return None
        done = len(entity.history)
        per_round = (entity.ended_at - entity.began_at) / done
        since = self.stopwatch.seconds(now) - entity.ended_at
        return max(0.0, per_round * (self.rounds - done) - since)

    def eta_of_all(self, now: datetime) -> float | None:
        """Estimate the seconds until the last entity is done; None while an entity has no estimate."""
        etas = [self.eta(name, now) for name in self.entities]
        known = [eta for eta in etas if eta is not None]
        return max(known) if known and len(known) == len(etas) else None
