"""Run folders: complete, running, interrupted, failed and damaged."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kuber.domain.event import Event, Kind
from kuber.errors import SettingsError
from kuber.views.comparison import ComparisonPlan
from kuber.views.run_index import StoredRun, read_run, read_runs
from kuber.wire.event import encode_event

from .stored_results import COMPARISON, RESULT

RUN = "20260102-030405-digits-kuber-seed0"
SIMULATION = f"{RUN}-simulated"
STANDALONE = f"{RUN}-entity2"
COMPARED = "20260102-030405-digits-compare"
START = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


def line(seconds: float, entity: str | None, round: int, kind: Kind, **detail: Any) -> str:
    time = START + timedelta(seconds=seconds)
    return encode_event(Event(time=time, entity=entity, seq=0, round=round, kind=kind, detail=detail)) + "\n"


def started(seconds: float) -> str:
    return line(seconds, None, 0, "run-started", version="0.1.0", resumed=False)


def ended(seconds: float, status: str, message: str | None = None) -> str:
    return line(seconds, None, 0, "run-ended", status=status, message=message)


def round_ended(seconds: float, round: int) -> str:
    return line(seconds, "2", round, "round-ended", accuracy=0.5, checkpoint=None)


def folder(tmp_path: Path, name: str, **files: str) -> Path:
    """A folder of a run: its settings, and files named without their ending."""
    path = tmp_path / name
    path.mkdir()
    endings = {
        "events": "events.jsonl",
        "result": "result.json",
        "plan": "comparison.json",
        "settings": "settings.json",
    }
    for file, text in {"settings": '{"num_rounds": 2}', **files}.items():
        (path / endings[file]).write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> StoredRun:
    run = read_run(path)
    assert run is not None
    return run


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with (path / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize(("name", "kind"), [(RUN, "run"), (f"{RUN}-3", "run"), (SIMULATION, "simulation")])
def test_a_complete_run_has_its_result(tmp_path: Path, name: str, kind: str) -> None:
    path = folder(tmp_path, name, result=RESULT.to_json())
    (path / "events.jsonl").write_text("not even looked at: it can be long\n")
    run = read(path)
    assert (run.name, run.kind, run.status, run.message, run.outcome) == (name, kind, "completed", None, RESULT)
    assert (run.started, run.wall_seconds) == (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), RESULT.wall_seconds)
    assert run.settings == {"num_rounds": 2}


def test_a_complete_comparison_has_its_tables(tmp_path: Path) -> None:
    plan = json.dumps({"strategies": ["local", "kuber", "fedmd"], "seeds": [0, 7]})
    run = read(folder(tmp_path, COMPARED, plan=plan, result=COMPARISON.to_json()))
    assert (run.kind, run.status, run.outcome) == ("comparison", "completed", COMPARISON)
    assert run.plan == ComparisonPlan(strategies=("local", "kuber", "fedmd"), seeds=(0, 7))
    assert run.wall_seconds is None


@pytest.mark.parametrize("name", [RUN, SIMULATION, STANDALONE, COMPARED])
def test_it_is_running_as_long_as_somebody_is_at_work(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name, plan='{"strategies": ["local"], "seeds": [0]}') if name == COMPARED else None
    path = path or folder(tmp_path, name, events=started(0) + ended(5, "failed", "It broke.") + started(9))
    with locked(path):
        run = read(path)
        assert (run.status, run.message, run.outcome) == ("running", None, None)
    assert read(path).status == "interrupted"


def test_the_result_of_an_earlier_session_is_not_that_of_a_running_one(tmp_path: Path) -> None:
    path = folder(tmp_path, RUN, result=RESULT.to_json(), events=started(0))
    with locked(path):
        assert (read(path).status, read(path).outcome) == ("running", None)
    assert read(path).status == "completed"


@pytest.mark.parametrize(
    ("events", "status", "message", "seconds"),
    [
        ("", "interrupted", None, None),
        (started(0), "interrupted", None, 0),
        (started(0) + line(7, "0", 1, "round-started"), "interrupted", None, 7),  # killed
        (started(0) + ended(5, "interrupted"), "interrupted", None, 5),
        (started(0) + ended(5, "completed"), "interrupted", None, 5),  # killed before its result was written
        (started(0) + ended(5, "failed", "No answer."), "failed", "No answer.", 5),
        (started(0) + line(7, "0", 1, "round-started") + started(90) + ended(93, "failed"), "failed", None, 10),
        (started(0) + line(7, "0", 1, "round-started")[:-9], "interrupted", None, 0),  # an incomplete line
    ],
)
def test_a_run_without_a_result_is_what_its_log_says(
    tmp_path: Path, events: str, status: str, message: str | None, seconds: float | None
) -> None:
    run = read(folder(tmp_path, RUN, events=events))
    assert (run.status, run.message, run.wall_seconds, run.outcome) == (status, message, seconds, None)


def test_virtual_time_is_not_active_time(tmp_path: Path) -> None:
    assert read(folder(tmp_path, SIMULATION, events=started(0) + round_ended(9, 1))).wall_seconds is None


@pytest.mark.parametrize(("round", "status"), [(1, "interrupted"), (2, "completed")])
def test_a_standalone_entity_is_done_after_its_last_round(tmp_path: Path, round: int, status: str) -> None:
    events = line(0, "2", 0, "round-started") + round_ended(30, round)
    run = read(folder(tmp_path, STANDALONE, events=events))
    assert (run.kind, run.status, run.wall_seconds) == ("entity", status, 30)


class TestRenamed:
    def test_a_run_is_known_by_its_hub(self, tmp_path: Path) -> None:
        path = folder(tmp_path, "the best", events=started(0), result=RESULT.to_json())
        (path / "hub").mkdir()
        assert (read(path).kind, read(path).started) == ("run", START)

    def test_a_simulation_has_no_hub_and_no_start(self, tmp_path: Path) -> None:
        run = read(folder(tmp_path, "the best", events=started(0), result=RESULT.to_json()))
        assert (run.kind, run.started, run.outcome) == ("simulation", None, RESULT)

    def test_an_entity_is_known_by_its_first_event(self, tmp_path: Path) -> None:
        run = read(folder(tmp_path, "20269999-999999-x-seed", events=round_ended(0, 2)))
        assert run.kind == "run"
        assert run.started is None  # digits that are not a time
        run = read(folder(tmp_path, "mine", events=round_ended(0, 2)))
        assert (run.kind, run.started, run.status) == ("entity", START, "completed")

    def test_a_comparison_is_known_by_its_plan(self, tmp_path: Path) -> None:
        assert read(folder(tmp_path, "mine", plan='{"strategies": ["local"], "seeds": [0]}')).kind == "comparison"


@pytest.mark.parametrize(
    ("name", "files", "sentence"),
    [
        (RUN, {"settings": '{"num_ro'}, "settings.json is not valid JSON; it may be cut off."),
        (RUN, {"settings": "[" * 100_000}, "settings.json is not valid JSON; it may be cut off."),
        (RUN, {"settings": "[1]"}, "settings.json holds no settings."),
        (RUN, {"result": RESULT.to_json()[:99]}, "result.json is not the result of a run: "),
        (RUN, {"result": COMPARISON.to_json()}, "result.json is not the result of a run: "),
        (COMPARED, {}, "It has no comparison.json."),
        (COMPARED, {"plan": "{}"}, "comparison.json is not the plan of a comparison: "),
        (
            COMPARED,
            {"plan": '{"strategies": ["local"], "seeds": [0]}', "result": RESULT.to_json()},
            "result.json is not the result of a comparison: ",
        ),
        (RUN, {"events": "garbage\n"}, "events.jsonl has a line that is not an event."),
        ("renamed", {"events": "\xff\n"}, "events.jsonl has a line that is not an event."),
    ],
)
def test_damage_is_described_in_a_sentence(tmp_path: Path, name: str, files: dict[str, str], sentence: str) -> None:
    run = read(folder(tmp_path, name, **files))
    assert run.status == "unreadable"
    assert run.outcome is None
    assert run.message is not None
    assert run.message.startswith(sentence)
    assert run.message.endswith(".")
    assert "\n" not in run.message


def test_missing_settings_are_named(tmp_path: Path) -> None:
    path = folder(tmp_path, RUN, events=started(0))
    (path / "settings.json").unlink()
    assert (read(path).status, read(path).message) == ("unreadable", "It has no settings.json.")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, RUN)
    (path / "result.json").mkdir()
    assert read(path).message == "result.json cannot be read: Is a directory."


def test_other_folders_are_skipped_and_the_newest_run_is_first(tmp_path: Path) -> None:
    for time in ("20260101-000000", "20260103-000000", "20260102-000000"):
        folder(tmp_path, f"{time}-digits-local-seed0")
    folder(tmp_path, "renamed")  # without a time
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "result.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("settings.json")
    os.symlink(tmp_path / "nowhere", tmp_path / "broken")
    os.symlink("itself", tmp_path / "itself")
    assert [run.name[:8] for run in read_runs(tmp_path)] == ["20260103", "20260102", "20260101", "renamed"]


def test_there_may_be_no_runs(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "runs") == []
    assert read_run(tmp_path / "runs") is None


def test_a_file_is_not_a_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(SettingsError, match=r"cannot be read: Not a directory\."):
        read_runs(tmp_path / "runs")
