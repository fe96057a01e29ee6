"""Sample event logs, made as entities make them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from kuber.domain.event import Event, Kind
from kuber.experiment.run_result import HeldOutAccuracy, active_seconds, result_of
from kuber.settings import Settings
from kuber.views.result import RunResult
from kuber.views.run import RunView

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLASSES = 10
WEIGHTS_BYTES = 400_000


class Story:
    """Writes events, one second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._seqs: dict[str | None, int] = {}

    def tell(self, entity: str | None, round: int, kind: Kind, **detail: Any) -> None:
        seq = self._seqs.get(entity, 0)
        self._seqs[entity] = seq + 1
        time = START + timedelta(seconds=len(self.events))
        self.events.append(Event(time=time, entity=entity, seq=seq, round=round, kind=kind, detail=detail))

    def evaluated(self, entity: str, round: int, stage: str, accuracy: float) -> float:
        correct = [int(accuracy * 200)] * CLASSES
        accuracy = sum(correct) / (200 * CLASSES)
        total = [200] * CLASSES
        detail = {"stage": stage, "correct": correct, "total": total, "accuracy": accuracy, "seconds": 1.0}
        self.tell(entity, round, "evaluated", **detail)
        return accuracy


def story(
    *, entities: int = 4, rounds: int = 8, strategy: str = "vanilla", seed: int = 0, ends: bool = True
) -> list[Event]:
    """The log of a run that follows the rounds of `vanilla` or `local`, with made-up accuracies."""
    draw = Random(seed)
    book = Story()
    book.tell(None, 0, "run-started", version="0.1.0", resumed=False)
    counts = [[draw.choice([0, 5, 60, 150, 420]) for _ in range(CLASSES)] for _ in range(entities)]
    for name in map(str, range(entities)):
        mine = counts[int(name)]
        runtime = {"architecture": "cnn", "device": "cpu", "precision": "float32", "threads": 1}
        book.tell(name, 0, "joined", id=f"id-{name}", samples=sum(mine), class_counts=mine, **runtime)
    best: dict[str, tuple[float, str]] = {}
    levels: dict[str, float] = {}
    for round in range(1, rounds + 1):
        for name in map(str, range(entities)):
            levels[name] = _round(book, name, round, levels.get(name), best, draw, strategy, sum(counts[int(name)]))
    if ends:
        book.tell(None, 0, "run-ended", status="completed", message=None)
    return book.events


def _round(
    book: Story,
    name: str,
    round: int,
    previous: float | None,
    best: dict[str, tuple[float, str]],
    draw: Random,
    strategy: str,
    samples: int,
) -> float:
    book.tell(name, round, "round-started")
    book.tell(name, round, "trained", samples=2 * samples, loss=1.5, seconds=3.0)
    level = draw.uniform(0.2, 0.3) if previous is None else min(0.95, max(0.05, previous + draw.uniform(-0.06, 0.07)))
    own = book.evaluated(name, round, "trained", level)
    if strategy == "vanilla" and (previous is None or own > previous):
        knowledge = f"{draw.getrandbits(64):016x}"
        best[name] = (own, knowledge)
        book.tell(name, round, "published", knowledge=knowledge, digest="sha256:" + "0" * 64, bytes=WEIGHTS_BYTES)
    elif strategy == "vanilla" and previous is not None and own < previous:
        better = sorted((a, k, n) for n, (a, k) in best.items() if n != name and a > own)
        book.tell(name, round, "sought", candidates=len(better))
        if better:
            claimed, knowledge, publisher = better[-1]
            pulled = {"knowledge": knowledge, "publisher": f"id-{publisher}", "accuracy": claimed}
            book.tell(name, round, "pulled", **pulled, bytes=WEIGHTS_BYTES)
            before, own = own, book.evaluated(name, round, "absorbed", own + draw.uniform(-0.01, 0.08))
            detail = {"teachers": [knowledge], "publishers": [f"id-{publisher}"], "method": "distil"}
            figures = {"before": before, "after": own, "kept": True, "samples": samples, "forward": samples}
            book.tell(name, round, "absorbed", **detail, **figures, seconds=2.0)
    book.tell(name, round, "round-ended", accuracy=own, checkpoint=f"round-{round:04d}.safetensors")
    return own


def outcome(events: list[Event], *, rounds: int = 8, **settings: Any) -> tuple[RunResult, RunView]:
    """The result and the view of a story; held-out accuracy is a little below the common one."""
    view = RunView.of(events, rounds=rounds)
    held_out = {
        name: [HeldOutAccuracy(max(0.0, accuracy - 0.01), min(1.0, accuracy + 0.1)) for _, accuracy in entity.history]
        for name, entity in view.entities.items()
    }
    settings_ = Settings(num_entities=len(view.entities), num_rounds=rounds, **settings)
    result = result_of(view, held_out, run_dir="runs/sample", settings=settings_, wall=active_seconds(events))
    return result, view


@pytest.fixture
def tell() -> Callable[..., list[Event]]:
    return story


@pytest.fixture
def end() -> Callable[..., tuple[RunResult, RunView]]:
    return outcome


@pytest.fixture
def sample() -> tuple[RunResult, RunView]:
    """A run of four entities in which some shared and some absorbed."""
    return outcome(story())
