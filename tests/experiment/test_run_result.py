"""The result of a run, computed from its events and held-out accuracies."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from kuber.domain.event import Event
from kuber.errors import SettingsError
from kuber.experiment.run_result import HeldOutAccuracy, active_seconds, result_of
from kuber.settings import Settings
from kuber.views.result import RunResult
from kuber.views.run import RunView

Tell = Callable[..., list[Event]]
End = Callable[..., tuple[RunResult, RunView]]


def held_out_of(*general: float) -> list[HeldOutAccuracy]:
    """Own accuracies are half above the general ones."""
    return [HeldOutAccuracy(general=accuracy, own=accuracy + 0.5) for accuracy in general]


def test_the_figures_are_those_of_the_log_and_the_held_out_set(tell: Tell) -> None:
    events = tell(entities=2, rounds=3)
    view = RunView.of(events, rounds=3)
    held_out = {"0": held_out_of(0.1, 0.2, 0.4), "1": held_out_of(0.3, 0.3, 0.2)}
    held_out["1"][-1] = held_out["1"][-1]._replace(private=0.25)
    settings = Settings(num_entities=2, num_rounds=3, seed=7, strategy="vanilla")
    result = result_of(view, held_out, run_dir="runs/x", settings=settings, wall=active_seconds(events))
    assert [entity.gain for entity in result.entities] == pytest.approx([0.3, -0.1])
    assert result.mean_accuracy == pytest.approx(0.3)
    assert result.own_accuracy == pytest.approx(0.8)
    assert [entity.private_accuracy for entity in result.entities] == [None, 0.25]
    assert [entity.own_accuracy for entity in result.entities] == pytest.approx([0.9, 0.7])
    assert result.entities[0].own_accuracies == pytest.approx((0.6, 0.7, 0.9))
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
        result_of(view, {"0": held_out_of(0.5)}, run_dir="runs/x", settings=Settings(), wall=1.0)


def test_a_run_without_a_completed_round_has_no_result(tell: Tell) -> None:
    joined = [event for event in tell(entities=2, rounds=1) if event.kind in ("run-started", "joined")]
    view = RunView.of(joined, rounds=1)
    assert len(view.entities) == 2
    with pytest.raises(SettingsError, match="no entity completed a round"):
        result_of(view, {}, run_dir="runs/x", settings=Settings(), wall=1.0)


def test_local_runs_publish_nothing(tell: Tell, end: End) -> None:
    result, _ = end(tell(strategy="local"), strategy="local")
    assert all((entity.published, entity.absorbed, entity.bytes_up) == (0, 0, 0) for entity in result.entities)
