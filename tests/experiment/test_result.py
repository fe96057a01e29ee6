"""The outcome of a run, and its way through JSON."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from kuber.domain.event import Event
from kuber.experiment.result import RunResult, result_of, wall_seconds
from kuber.settings import Settings
from kuber.views import RunView

Tell = Callable[..., list[Event]]
End = Callable[..., tuple[RunResult, RunView]]


def test_json_holds_the_promised_fields(sample: tuple[RunResult, RunView]) -> None:
    found = json.loads(sample[0].to_json())
    promised = {"run_dir", "strategy", "seed", "entities", "mean_accuracy", "worst_accuracy", "wall_seconds"}
    assert promised | {"samples_trained", "samples_forward"} <= set(found)
    for entity in found["entities"]:
        assert {"entity", "final_accuracy", "published", "absorbed", "rejected", "bytes_up", "bytes_down"} <= set(
            entity
        )


def test_json_goes_both_ways(sample: tuple[RunResult, RunView]) -> None:
    assert RunResult.from_json(sample[0].to_json()) == sample[0]


def test_fields_of_later_versions_are_left_out(sample: tuple[RunResult, RunView]) -> None:
    found = json.loads(sample[0].to_json()) | {"colour": "green"}
    found["entities"][0]["mood"] = "good"
    assert RunResult.from_json(json.dumps(found)) == sample[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entities": [1]}', '{"entities": [{"entity": "0"}]}'])
def test_anything_else_is_no_result(text: str) -> None:
    with pytest.raises(ValueError):
        RunResult.from_json(text)


def test_the_figures_are_those_of_the_log_and_the_held_out_set(tell: Tell) -> None:
    events = tell(entities=2, rounds=3)
    view = RunView.of(events, rounds=3)
    held_out = {"0": [0.1, 0.2, 0.4], "1": [0.3, 0.3, 0.2]}
    settings = Settings(num_entities=2, num_rounds=3, seed=7, strategy="vanilla")
    result = result_of(view, held_out, run_dir="runs/x", settings=settings, wall=wall_seconds(events))
    assert [entity.gain for entity in result.entities] == pytest.approx([0.3, -0.1])
    assert result.mean_accuracy == pytest.approx(0.3)
    assert result.start_accuracy == pytest.approx(0.2)
    assert (result.worst_accuracy, result.worst.entity) == (0.2, "1")
    assert (result.seed, result.rounds, result.architecture, result.device) == (7, 3, "cnn", "cpu")
    published = [event for event in events if event.kind == "published"]
    assert sum(entity.published for entity in result.entities) == len(published) > 0
    assert sum(entity.bytes_up for entity in result.entities) == sum(event.detail["bytes"] for event in published)
    trained = sum(event.detail["samples"] for event in events if event.kind in ("trained", "absorbed"))
    assert result.samples_trained == trained
    assert result.wall_seconds == (events[-1].time - events[0].time) / timedelta(seconds=1)


def test_a_result_needs_held_out_accuracies_of_every_entity(tell: Tell) -> None:
    view = RunView.of(tell(entities=2, rounds=1), rounds=1)
    with pytest.raises(ValueError, match="missing: 1"):
        result_of(view, {"0": [0.5]}, run_dir="runs/x", settings=Settings(), wall=1.0)


def test_local_runs_share_nothing(tell: Tell, end: End) -> None:
    result, _ = end(tell(strategy="local"), strategy="local")
    assert all((entity.published, entity.absorbed, entity.bytes_up) == (0, 0, 0) for entity in result.entities)
