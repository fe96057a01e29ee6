"""Scalars over time from an event log, for tools that draw curves."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kuber.domain.event import Event
from kuber.entity.state.event_log import FILE_NAME, EventTail
from kuber.errors import CorruptKnowledgeError, SettingsError

ACCURACY = "accuracy"  # on the common test set, at the end of a round
GAIN = "gain"  # accuracy after an absorption, before it is kept or undone, minus that before it
LOSS = "loss"  # of training, mean of the last epoch of the local phase
SECONDS = "seconds"  # of the local phase
SENT = "bytes_sent"  # since the log began
RECEIVED = "bytes_received"  # since the log began

PAUSE = 0.5  # seconds between two reads of a log that is followed
_TRAFFIC = {"published": SENT, "pulled": RECEIVED, "rejected": RECEIVED}

Traffic = Counter[tuple[str, str]]  # (entity, scalar name) -> bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """One value at one time."""

    time: datetime  # UTC
    entity: str
    name: str
    round: int  # the entity's own
    value: float


def scalars(events: Iterable[Event], total: Traffic | None = None) -> Iterator[Scalar]:
    """Yield the scalars of these events, in order.

    Bytes are summed up; `total` carries the sums from one part of a log to the next. Raises SettingsError when an
    event lacks a field of its kind.
    """
    total = Counter() if total is None else total
    for event in events:
        if event.entity is None:
            continue
        try:
            numbers = {name: float(value) for name, value in _numbers(event, event.entity, total)}
        except (KeyError, TypeError, ValueError):
            raise SettingsError(
                f"A {event.kind} event of {event.entity} has not the fields in docs/events.md."
            ) from None
        for name, value in numbers.items():
            yield Scalar(time=event.time, entity=event.entity, name=name, round=event.round, value=value)


def event_batches(run_dir: Path, *, follow: bool = False, pause: float = PAUSE) -> Iterator[list[Event]]:
    """Yield the events in the folder of a run or entity, a batch for each read; with `follow` until the run ends.

    The log of a custom loop has no end event, so following it ends only by interruption. Raises SettingsError when
    there is no log, or a line of it is not an event.
    """
    path = run_dir / FILE_NAME
    if not path.is_file():
        raise SettingsError(f"{run_dir} is not the folder of a run: it has no {FILE_NAME}.")
    return _read_batches(path, follow, pause)


def _read_batches(path: Path, follow: bool, pause: float) -> Iterator[list[Event]]:
    tail, ended = EventTail(path), False
    while True:
        try:
            events = tail.read()
        except CorruptKnowledgeError as error:
            raise SettingsError(error.message) from None
        for event in events:
            if event.kind in ("run-started", "run-ended"):
                ended = event.kind == "run-ended"  # a run that was resumed has several of both
        yield events
        if ended or not follow:
            return
        time.sleep(pause)


def _numbers(event: Event, entity: str, total: Traffic) -> Iterator[tuple[str, float]]:
    detail = event.detail
    match event.kind:
        case "round-ended":
            yield ACCURACY, detail["accuracy"]
        case "absorbed":
            yield GAIN, detail["after"] - detail["before"]
        case "trained":
            yield LOSS, detail["loss"]
            yield SECONDS, detail["seconds"]
        case "published" | "pulled" | "rejected":
            name = _TRAFFIC[event.kind]
            total[entity, name] += detail["bytes"]
            yield name, total[entity, name]
