"""The state of a run after its events."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.domain.event import Event, Kind
from kuber.views.formatting import duration, natural, percent, points, size
from kuber.views.run import CurveMark, RunView, Stopwatch

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(seconds: float, entity: str | None, round: int, kind: Kind, /, **detail: Any) -> Event:
    return Event(time=START + timedelta(seconds=seconds), entity=entity, seq=0, round=round, kind=kind, detail=detail)


def joined(seconds: float, name: str) -> Event:
    detail = {"samples": 30, "class_counts": [10, 20], "architecture": "cnn", "device": "cpu"}
    return at(seconds, name, 0, "joined", id=f"id-{name}", **detail, precision="float32", threads=1)


def evaluated(seconds: float, name: str, round: int, correct: int, stage: str = "trained") -> Event:
    detail = {"stage": stage, "correct": [correct, 0], "total": [50, 50], "accuracy": correct / 100, "seconds": 1.0}
    return at(seconds, name, round, "evaluated", **detail)


def ended(seconds: float, name: str, round: int, accuracy: float = 0.3) -> Event:
    return at(seconds, name, round, "round-ended", accuracy=accuracy, checkpoint="round-0001.safetensors")


def started(seconds: float, *, resumed: bool = False) -> Event:
    return at(seconds, None, 0, "run-started", version="0.1.0", resumed=resumed)


def run_ended(seconds: float, status: str = "completed", message: str | None = None) -> Event:
    return at(seconds, None, 0, "run-ended", status=status, message=message)


def absorbed(seconds: float, name: str, round: int, *, kept: bool) -> Event:
    detail = {"teachers": ["k1"], "publishers": ["id-0"], "method": "distil", "before": 0.2, "after": 0.25}
    return at(seconds, name, round, "absorbed", **detail, kept=kept, samples=60, forward=30, seconds=2.0)


PUBLISH = [
    (joined(0, "0"), "waiting"),
    (at(1, "0", 1, "round-started"), "training"),
    (at(2, "0", 1, "trained", samples=60, loss=1.0, seconds=1.0), "evaluating"),
    (evaluated(3, "0", 1, 30), "deciding"),
    (at(4, "0", 1, "published", knowledge="k1", digest="sha256:" + "0" * 64, bytes=500), "publishing"),
    (ended(5, "0", 1), "waiting"),
]
ABSORB = [
    (joined(5, "1"), "waiting"),
    (at(6, "1", 1, "round-started"), "training"),
    (at(7, "1", 1, "trained", samples=60, loss=1.0, seconds=1.0), "evaluating"),
    (evaluated(8, "1", 1, 20), "deciding"),
    (at(9, "1", 1, "sought", candidates=2), "discovering"),
    (at(10, "1", 1, "rejected", knowledge="k0", reason="It is damaged.", bytes=100), "discovering"),
    (at(11, "1", 1, "pulled", knowledge="k1", publisher="id-0", accuracy=0.3, bytes=500), "distilling"),
    (evaluated(12, "1", 1, 25, stage="absorbed"), "deciding"),
]


@pytest.fixture
def view() -> RunView:
    return RunView(rounds=2)


@pytest.mark.parametrize("story", [PUBLISH, ABSORB])
def test_every_event_leads_to_a_state(view: RunView, story: list[tuple[Event, str]]) -> None:
    states = []
    for event, _ in story:
        view.apply(event)
        assert event.entity is not None
        states.append(view.entities[event.entity].state)
    assert states == [state for _, state in story]


def test_a_publication_is_counted_and_marked(view: RunView) -> None:
    for event, _ in PUBLISH:
        view.apply(event)
    entity = view.entities["0"]
    assert (entity.published, entity.bytes_up, entity.bytes_down) == (1, 500, 0)
    assert (entity.samples, entity.class_counts, entity.samples_trained, entity.samples_forward) == (
        30,
        (10, 20),
        60,
        100,
    )
    assert entity.history == [(1, 0.3)]
    assert entity.marks == [CurveMark(round=1, accuracy=0.3, kind="published", publisher=None)]


@pytest.mark.parametrize(("kept", "accuracy"), [(True, 0.25), (False, 0.2)])
def test_a_delivery_counts_as_absorbed_only_when_kept(view: RunView, kept: bool, accuracy: float) -> None:
    for event, _ in [*PUBLISH, *ABSORB]:
        view.apply(event)
    view.apply(absorbed(13, "1", 1, kept=kept))
    student = view.entities["1"]
    assert (student.absorbed, student.rejected) == (int(kept), 1 + (not kept))  # k0 was refused in any case
    assert student.accuracy == accuracy
    assert student.bytes_down == 600
    assert (student.samples_trained, student.samples_forward) == (120, 230)
    assert [(mark.round, mark.accuracy, mark.publisher) for mark in student.marks] == [(1, accuracy, "id-0")]
    assert view.taught == ({("0", "1"): 1} if kept else {})
    assert [delivery.kept for delivery in view.deliveries] == [kept]


def test_recalls_are_those_of_the_model_at_the_end_of_the_round(view: RunView) -> None:
    view.apply(joined(0, "0"))
    view.apply(evaluated(1, "0", 1, 20))
    view.apply(evaluated(2, "0", 1, 30, stage="absorbed"))
    assert view.entities["0"].recalls == ()
    view.apply(ended(3, "0", 1, 0.2))  # the absorbed model was not kept
    assert view.entities["0"].recalls == (0.4, 0.0)
    view.apply(evaluated(4, "0", 2, 10))
    view.apply(ended(5, "0", 2, 0.2))  # nor was the trained one
    assert view.entities["0"].recalls == (0.4, 0.0)


def test_models_of_others_and_published_copies_do_not_count_for_recalls(view: RunView) -> None:
    view.apply(joined(0, "0"))
    view.apply(evaluated(1, "0", 1, 20))
    candidate = {"stage": "candidate", "knowledge": "k", "correct": [0, 20], "total": [50, 50], "accuracy": 0.2}
    view.apply(at(2, "0", 1, "evaluated", **candidate, seconds=1.0))
    sent = {"stage": "narrowed", "correct": [1, 19], "total": [50, 50], "accuracy": 0.2}
    view.apply(at(2, "0", 1, "evaluated", **sent, seconds=1.0))
    view.apply(ended(3, "0", 1, 0.2))
    assert view.entities["0"].recalls == (0.4, 0.0)


def test_a_class_without_samples_has_no_recall(view: RunView) -> None:
    view.apply(joined(0, "0"))
    detail = {"stage": "trained", "correct": [5, 0], "total": [10, 0], "accuracy": 0.5}
    view.apply(at(1, "0", 1, "evaluated", **detail, seconds=1.0))
    view.apply(ended(2, "0", 1, 0.5))
    assert view.entities["0"].recalls == (0.5, None)


def test_recalls_are_empty_if_the_model_was_never_evaluated(view: RunView) -> None:
    view.apply(joined(0, "0"))
    view.apply(evaluated(1, "0", 1, 20))
    view.apply(ended(2, "0", 1, 0.9))
    assert view.entities["0"].recalls == ()


def test_the_reason_for_choosing_teachers_is_kept_if_logged(view: RunView) -> None:
    for event, _ in [*PUBLISH, *ABSORB]:
        view.apply(event)
    event = absorbed(13, "1", 1, kept=True)
    view.apply(event)
    view.apply(replace(event, detail={**event.detail, "reason": "It is better."}))
    view.apply(replace(event, detail={**event.detail, "reason": None}))
    assert [delivery.reason for delivery in view.deliveries] == [None, "It is better.", None]


def test_an_entity_is_done_after_its_last_round(view: RunView) -> None:
    view.apply(joined(0, "0"))
    for round in (1, 2):
        view.apply(at(round, "0", round, "round-started"))
        view.apply(ended(round + 0.5, "0", round))
    view.apply(run_ended(9, "interrupted"))
    assert view.entities["0"].state == "done"


@pytest.mark.parametrize(("status", "state"), [("failed", "failed"), ("interrupted", "stopped")])
def test_the_end_of_a_run_stops_its_entities_until_it_is_resumed(view: RunView, status: str, state: str) -> None:
    view.apply(started(0))
    view.apply(joined(1, "0"))
    view.apply(run_ended(2, status, "No answer."))
    assert (view.entities["0"].state, view.status, view.message) == (state, status, "No answer.")
    view.apply(started(50, resumed=True))
    assert (view.entities["0"].state, view.status, view.message) == ("waiting", "running", None)


def test_entities_are_sorted_naturally(view: RunView) -> None:
    for name in ("10", "lab", "2", "1"):
        view.apply(joined(0, name))
    assert list(view.entities) == ["1", "2", "10", "lab"]
    assert sorted(["b", "10", "9"], key=natural) == ["9", "10", "b"]
    assert sorted(["ward 10", "ward", "ward 9b", "9", "", "ward 9"], key=natural) == [
        "",
        "9",
        "ward",
        "ward 9",
        "ward 9b",
        "ward 10",
    ]


def test_a_publisher_that_is_not_in_the_log_keeps_its_id(view: RunView) -> None:
    assert view.name_of("id-7") == "id-7"


class TestEta:
    def test_is_unknown_until_a_round_is_done(self, view: RunView) -> None:
        view.apply(joined(0, "0"))
        view.apply(at(0, "0", 1, "round-started"))
        assert view.eta("0", START) is None
        assert view.eta_of_all(START) is None

    def test_is_extrapolated_from_past_rounds(self) -> None:
        view = RunView.of([started(0), joined(1, "0"), at(2, "0", 1, "round-started"), ended(12, "0", 1)], rounds=4)
        assert view.eta("0", START + timedelta(seconds=12)) == 30
        assert view.eta("0", START + timedelta(seconds=16)) == 26
        assert view.eta("0", START + timedelta(seconds=99)) == 0

    def test_does_not_count_a_pause(self) -> None:
        events = [
            started(0),
            joined(1, "0"),
            at(2, "0", 1, "round-started"),
            run_ended(6, "interrupted"),
            started(1000, resumed=True),
            ended(1006, "0", 1),
        ]
        view = RunView.of(events, rounds=2)
        assert view.eta("0", START + timedelta(seconds=1006)) == 10

    def test_of_all_is_that_of_the_last(self) -> None:
        events = [joined(0, "0"), joined(0, "1")]
        for name, length in (("0", 5), ("1", 8)):
            events += [at(0, name, 1, "round-started"), ended(length, name, 1)]
        assert RunView.of(events, rounds=2).eta_of_all(START + timedelta(seconds=8)) == 8


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([], 0),
        ([started(0), joined(4, "0"), run_ended(10)], 10),
        ([started(0), run_ended(10, "failed"), started(100), run_ended(105)], 15),
        ([started(0), joined(7, "0"), started(100), run_ended(105)], 12),  # the first session was killed
        ([joined(3, "0"), ended(9, "0", 1)], 6),  # the log of `kuber entity` has no run events
    ],
)
def test_a_stopwatch_adds_up_sessions(events: list[Event], seconds: float) -> None:
    stopwatch = Stopwatch()
    for event in events:
        stopwatch.apply(event)
    assert stopwatch.seconds() == seconds


@pytest.mark.parametrize(
    ("written", "value", "expected"),
    [
        (percent, 0.41249, "41.2%"),
        (points, 0.031, "+3.1"),
        (points, -0.00001, "+0.0"),
        (points, -0.12, "-12.0"),
        (size, 999, "999 B"),
        (size, 400_123, "400.1 kB"),
        (size, 999_999, "1.0 MB"),
        (size, 3 * 10**15, "3000.0 TB"),
        (duration, 59.6, "1:00"),
        (duration, 3725, "1:02:05"),
    ],
)
def test_figures_are_formatted(written: Callable[[float], str], value: float, expected: str) -> None:
    assert written(value) == expected


@pytest.mark.process
def test_nothing_that_draws_a_run_loads_torch() -> None:
    modules = (
        "kuber.views, kuber.experiment.reports.plots, kuber.experiment.reports.run_report, kuber.cli.run_progress"
    )
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
