"""The runs in a folder, and the status of each. docs/runs.md describes the files in the folder of a run."""

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
from kuber.wire.event import decode_event

SETTINGS_FILE = "settings.json"
PLAN_FILE = "comparison.json"  # only of a comparison
RESULT_FILE = "result.json"
LOCK_FILE = "lock"  # locked by the process that works in the folder
HUB_FOLDER = "hub"  # only of `kuber run`
NAME_TIME_FORMAT = "%Y%m%d-%H%M%S"  # start time in UTC, the beginning of a run folder's name

Kind = Literal["run", "simulation", "comparison", "entity"]
Status = Literal["running", "completed", "interrupted", "failed", "unreadable"]

_KINDS: dict[str, Kind] = {"simulated": "simulation", "compare": "comparison", "entity": "entity", "seed": "run"}
_NAME = re.compile(r"(?P<time>\d{8}-\d{6})-.*-(?P<kind>simulated|compare|entity|seed)\d*(-\d+)?")
_EVENT_OF_RUN = b'"entity":null'  # in the line of an event that belongs to no entity
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRun:
    """A run as its folder describes it."""

    path: Path
    name: str  # of the folder
    kind: Kind
    started: datetime | None  # UTC; None if neither the name nor an event says
    status: Status
    message: str | None  # why it failed or cannot be read
    settings: Mapping[str, Any]  # without defaults
    plan: ComparisonPlan | None  # of a comparison
    wall_seconds: float | None  # active; None for a comparison and an unfinished simulation
    outcome: RunResult | ComparisonResult | None

    @property
    def all_settings(self) -> dict[str, Any]:
        """Every setting, defaults included; empty if the run cannot be read."""
        if self.status == "unreadable":
            return {}
        return Settings.model_validate({}).model_dump(mode="json") | dict(self.settings)


def read_runs(folder: Path) -> list[StoredRun]:
    """Return every run in this folder, newest first; none if there is no such folder.

    Running, interrupted and damaged runs are included; folders that hold no run are skipped.
    Raises SettingsError if the folder itself cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if name.isprintable()]  # no page could name the others
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"The folder of runs {folder} cannot be read: {error.strerror}.") from None
    runs = [run for run in (read_run(folder / name) for name in names) if run is not None]
    return sorted(runs, key=lambda run: (run.started or _LONG_AGO, run.name), reverse=True)


def read_run(path: Path) -> StoredRun | None:
    """Return the run in this folder, or None if the path is not the folder of a run."""
    if not os.path.isdir(path):
        return None
    at_work = is_at_work(path)  # before reading the files: a run that ends meanwhile leaves a result
    reading = _Reading(path, at_work)
    try:
        reading.files = set(os.listdir(path))
        if reading.files.isdisjoint({SETTINGS_FILE, PLAN_FILE, EVENTS_FILE}):
            return None
        return reading.run()
    except ValueError as error:
        return reading.unreadable(str(error))
    except OSError as error:
        return reading.unreadable(f"{Path(error.filename or path).name} cannot be read: {error.strerror}.")


def is_at_work(path: Path) -> bool:
    """Whether a live process works in this run folder."""
    try:
        with (path / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class _Reading:
    """One folder while it is read."""

    def __init__(self, path: Path, at_work: bool) -> None:
        self.path = path
        self.at_work = at_work
        self.files: set[str] = set()  # names
        self.match = _NAME.fullmatch(path.name)
        self.kind: Kind = _KINDS[self.match["kind"]] if self.match else "run"
        self.settings: Mapping[str, Any] = {}
        self.plan: ComparisonPlan | None = None
        self.started = _time_in(self.match["time"]) if self.match else None
        self.seconds: float | None = None
        self.outcome: RunResult | ComparisonResult | None = None

    def run(self) -> StoredRun:
        """Return the run. Raises ValueError with a sentence, or OSError, if one of its files cannot be read."""
        if PLAN_FILE in self.files:
            self.kind = "comparison"
        elif self.match is None:
            self._read_first_event()
        self.settings = _settings(self.path / SETTINGS_FILE)
        if self.kind == "comparison":
            self.plan = _plan(self.path / PLAN_FILE)
        if RESULT_FILE in self.files and not self.at_work:
            return self._completed()
        if EVENTS_FILE in self.files:
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
        """Return a run without a result. A simulation logs virtual time, not active seconds."""
        events = _session_bounds(self.path / EVENTS_FILE)
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

    def _read_first_event(self) -> None:
        """Infer the kind and the start of a run from its first event; its folder was renamed."""
        if EVENTS_FILE not in self.files:
            return
        with (self.path / EVENTS_FILE).open("rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            return
        first = _event(line)
        if first.entity is not None:
            self.kind = "entity"
        elif HUB_FOLDER not in self.files:
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
        return datetime.strptime(text, NAME_TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:  # digits that are not a time
        return None


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"It has no {path.name}.") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path.name} is not valid JSON; it may be cut off.") from None
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


def _session_bounds(path: Path) -> list[Event]:
    """Return the events that bound the sessions of a log: the first, the last, those of the run, those before them.

    An incomplete last line is left out. Raises ValueError if one of these lines is not an event.
    """
    data = path.read_bytes()
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    marks = [number for number, line in enumerate(lines) if _EVENT_OF_RUN in line]
    wanted = {0, len(lines) - 1, *marks, *(number - 1 for number in marks)}
    return [_event(lines[number]) for number in sorted(wanted) if 0 <= number < len(lines)]


def _event(line: bytes) -> Event:
    try:
        return decode_event(line.decode())
    except ValueError:
        raise ValueError(f"{EVENTS_FILE} has a line that is not an event.") from None
