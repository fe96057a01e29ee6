"""The runs that a folder holds, and how far each has come. docs/runs.md says what is in the folder of a run."""

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kuber.domain.event import Event
from kuber.entity.state.event_log import FILE_NAME as EVENTS_FILE
from kuber.errors import SettingsError
from kuber.settings import Settings
from kuber.views.comparison import ComparisonPlan, ComparisonResult
from kuber.views.result import RunResult, parsed
from kuber.views.run import Stopwatch
from kuber.wire import decode_event

SETTINGS_FILE = "settings.json"
PLAN_FILE = "comparison.json"  # only of a comparison
RESULT_FILE = "result.json"
LOCK_FILE = "lock"  # locked by whoever is at work in the folder
HUB_FOLDER = "hub"  # only of `kuber run`
NAMED = "%Y%m%d-%H%M%S"  # when it was started, in UTC: what the name of a run's folder begins with

Kind = Literal["run", "simulation", "comparison", "entity"]
Status = Literal["running", "completed", "interrupted", "failed", "unreadable"]

_KINDS: dict[str, Kind] = {"simulated": "simulation", "compare": "comparison", "entity": "entity", "seed": "run"}
_NAME = re.compile(r"(?P<time>\d{8}-\d{6})-.*-(?P<kind>simulated|compare|entity|seed)\d*(-\d+)?")
_OF_THE_RUN = b'"entity":null'  # in the line of an event that is no entity's
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRun:
    """One folder of a run."""

    path: Path
    name: str  # of the folder
    kind: Kind
    started: datetime | None  # UTC; None where neither the name nor an event tells
    status: Status
    message: str | None  # why it failed or cannot be read, as a sentence
    settings: Mapping[str, Any]  # that were given; the others are defaults
    plan: ComparisonPlan | None  # of a comparison
    wall_seconds: float | None  # at work; None of a comparison and of a simulation that has not ended
    outcome: RunResult | ComparisonResult | None

    @property
    def told(self) -> dict[str, Any]:
        """Every setting, also those that are defaults; none of a run that cannot be read."""
        if self.status == "unreadable":
            return {}
        return Settings.model_validate({}).model_dump(mode="json") | dict(self.settings)


def read_runs(folder: Path) -> list[StoredRun]:
    """Every run in this folder, newest first; none where there is no such folder.

    A run that goes on, was killed or is damaged is shown as what it is; a folder that is no run's is passed over.
    Raises SettingsError when the folder itself cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if name.isprintable()]  # else no page could name it
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"The folder of runs {folder} cannot be read: {error.strerror}.") from None
    runs = [run for run in (read_run(folder / name) for name in names) if run is not None]
    return sorted(runs, key=lambda run: (run.started or _LONG_AGO, run.name), reverse=True)


def read_run(path: Path) -> StoredRun | None:
    """The run in this folder; None when it is no folder, or not that of a run."""
    if not os.path.isdir(path):
        return None
    at_work = is_at_work(path)  # looked at before the files: a run that ends now leaves a result behind
    reading = _Reading(path, at_work)
    try:
        reading.names = set(os.listdir(path))
        if reading.names.isdisjoint({SETTINGS_FILE, PLAN_FILE, EVENTS_FILE}):
            return None
        return reading.run()
    except ValueError as error:
        return reading.unreadable(str(error))
    except OSError as error:
        return reading.unreadable(f"{Path(error.filename or path).name} cannot be read: {error.strerror}.")


def is_at_work(path: Path) -> bool:
    """Whether somebody is at work in this folder of a run; who was killed is not."""
    try:
        with (path / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class _Reading:
    """What was found in one folder so far."""

    def __init__(self, path: Path, at_work: bool) -> None:
        self.path = path
        self.at_work = at_work
        self.names: set[str] = set()  # of its files
        self.named = _NAME.fullmatch(path.name)
        self.kind: Kind = _KINDS[self.named["kind"]] if self.named else "run"
        self.settings: Mapping[str, Any] = {}
        self.plan: ComparisonPlan | None = None
        self.started = _time_in(self.named["time"]) if self.named else None
        self.seconds: float | None = None
        self.outcome: RunResult | ComparisonResult | None = None

    def run(self) -> StoredRun:
        """The run as it is. Raises ValueError with a sentence, or OSError, when a file of it cannot be read."""
        if PLAN_FILE in self.names:
            self.kind = "comparison"
        elif self.named is None:
            self._look_at_first()
        self.settings = _settings(self.path / SETTINGS_FILE)
        if self.kind == "comparison":
            self.plan = _plan(self.path / PLAN_FILE)
        if RESULT_FILE in self.names and not self.at_work:
            return self._completed()
        if EVENTS_FILE in self.names:
            return self._unfinished()
        return self.stored("running" if self.at_work else "interrupted")

    def _completed(self) -> StoredRun:
        kind = ComparisonResult if self.kind == "comparison" else RunResult
        try:
            self.outcome = kind.from_json((self.path / RESULT_FILE).read_bytes())
        except ValueError as error:
            raise ValueError(f"{RESULT_FILE}{str(error).removeprefix('This')}") from None
        if isinstance(self.outcome, RunResult):
            self.seconds = self.outcome.wall_seconds
        return self.stored("completed")

    def _unfinished(self) -> StoredRun:
        """A run without a result. A simulation's log tells virtual time, so it says nothing of seconds."""
        events = _landmarks(self.path / EVENTS_FILE)
        if events and self.kind in ("run", "entity"):
            stopwatch = Stopwatch()
            for event in events:
                stopwatch.apply(event)
            self.seconds = stopwatch.seconds()
        if self.at_work:
            return self.stored("running")
        ends = [event for event in events if event.entity is None]
        if ends and ends[-1].detail.get("status") == "failed":
            message = ends[-1].detail.get("message")
            return self.stored("failed", message if isinstance(message, str) else None)
        if self.kind == "entity" and events:
            rounds = self.settings.get("num_rounds", Settings.model_fields["num_rounds"].default)
            last = events[-1]
            if last.kind == "round-ended" and isinstance(rounds, int) and last.round >= rounds:
                return self.stored("completed")
        return self.stored("interrupted")

    def _look_at_first(self) -> None:
        """A folder that was renamed: its kind and its time as its first event tells."""
        if EVENTS_FILE not in self.names:
            return
        with (self.path / EVENTS_FILE).open("rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            return
        first = _event(line)
        if first.entity is not None:
            self.kind = "entity"
        elif HUB_FOLDER not in self.names:
            self.kind = "simulation"
        if self.kind != "simulation":  # its clock is virtual
            self.started = first.time

    def unreadable(self, message: str) -> StoredRun:
        self.outcome = None
        return self.stored("unreadable", message)

    def stored(self, status: Status, message: str | None = None) -> StoredRun:
        return StoredRun(
            path=self.path,
            name=self.path.name,
            kind=self.kind,
            started=self.started,
            status=status,
            message=message,
            settings=self.settings,
            plan=self.plan,
            wall_seconds=self.seconds,
            outcome=self.outcome,
        )


def _time_in(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, NAMED).replace(tzinfo=UTC)
    except ValueError:  # digits that are no time
        return None


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"It has no {path.name}.") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path.name} is not JSON, or only a part of it.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no settings.")
    return found


def _plan(path: Path) -> ComparisonPlan:
    try:
        return parsed(ComparisonPlan, path.read_bytes(), what="the plan of a comparison")
    except FileNotFoundError:
        raise ValueError(f"It has no {path.name}.") from None
    except ValueError as error:
        raise ValueError(f"{path.name}{str(error).removeprefix('This')}") from None


def _landmarks(path: Path) -> list[Event]:
    """The first and the last event of a log, those of the run, and those right before them: all that its time needs.

    A line that is not whole yet is left out. Raises ValueError when one of these is no event.
    """
    data = path.read_bytes()
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    marks = [number for number, line in enumerate(lines) if _OF_THE_RUN in line]
    wanted = {0, len(lines) - 1, *marks, *(number - 1 for number in marks)}
    return [_event(lines[number]) for number in sorted(wanted) if 0 <= number < len(lines)]


def _event(line: bytes) -> Event:
    try:
        return decode_event(line.decode())
    except ValueError:
        raise ValueError(f"{EVENTS_FILE} has a line that is no event.") from None
