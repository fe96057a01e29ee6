"""Event logs on this machine, by the id of an entity: the model that it deploys, and its last report on joining."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from kuber.domain.event import Event
from kuber.domain.joining_report import JoiningReport
from kuber.entity.state.event_log import FILE_NAME
from kuber.views.run import DeployedView
from kuber.wire.event import decode_event

MAX_LOGS = 100  # read in a folder: those that were written last
CLOCKS = timedelta(hours=1)  # by which the clocks of the hub and of this machine may differ
_KINDS = tuple(f'"kind":"{kind}"'.encode() for kind in ("joined", "round-ended", "compared"))


@dataclass(kw_only=True, slots=True)
class LoggedEntity:
    """State of an entity by its log, beyond what its hub knows."""

    rounds: int = 0  # ended
    deployed: DeployedView | None = None  # after the last of them; None in an own loop and in older logs
    report: JoiningReport | None = None
    reported: datetime | None = None  # when that was made


class EntityLogs:
    """Finds the log of an entity in folders of runs and of entities, and reads what was added since."""

    def __init__(self, *folders: Path) -> None:
        """Each folder has a folder with an event log for each run or entity."""
        self._folders = folders
        self._logs: dict[str, _Log] = {}  # by path
        self._found: dict[str, _Log] = {}  # by id of an entity
        self._lock = Lock()  # pages read in threads of their own

    def find(self, id: str, *, joined: datetime) -> LoggedEntity | None:
        """Return the entity with this id, which `joined` its hub then; None if no log on this machine has it. Blocks.

        A log that cannot be read is no log; `kuber dashboard` shows what runs it cannot read on their page.
        """
        with self._lock:
            for log in self._candidates(id, (joined - CLOCKS).timestamp()):
                log.read()
                if id in log.names:
                    self._found[id] = log
                    return log.entities.get(log.names[id])
        return None

    def _candidates(self, id: str, earliest: float) -> Iterator["_Log"]:
        """Yield the log where the entity was found before, then those that were written since it joined."""
        if id in self._found:
            yield self._found[id]
        for folder in self._folders:
            for path in _newest(folder, earliest):
                yield self._logs.setdefault(path, _Log(path))


@dataclass(slots=True)
class _Log:
    """One log, as far as it was read."""

    path: str
    names: dict[str, str] = field(default_factory=dict)  # id of an entity -> its name in the log
    entities: dict[str, LoggedEntity] = field(default_factory=dict)  # by name
    _position: int = 0

    def read(self) -> None:
        """Read the lines that were added; all of them if the log is shorter than before, as after a crash."""
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._position:
                    self.names, self.entities, self._position = {}, {}, 0
                file.seek(self._position)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._position += len(line)
                    if any(kind in line for kind in _KINDS):
                        self._apply(line)
        except OSError:
            return

    def _apply(self, line: bytes) -> None:
        try:
            event = decode_event(line.decode())
            if event.entity is not None:
                self._apply_event(event.entity, event)
        except (ValueError, KeyError, TypeError):  # a line of another version, or a damaged one
            return

    def _apply_event(self, name: str, event: Event) -> None:
        entity = self.entities.setdefault(name, LoggedEntity())
        match event.kind:
            case "joined":
                self.names[event.detail["id"]] = name
            case "round-ended":
                entity.rounds = event.round
                detail = event.detail.get("deployed")
                entity.deployed = None if detail is None else DeployedView.of(detail)
            case "compared":
                entity.report, entity.reported = JoiningReport.from_dict(event.detail), event.time


def _newest(folder: Path, earliest: float) -> Sequence[str]:
    """Return the paths of the logs in a folder that were written since then, the latest first."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = os.path.join(entry.path, FILE_NAME)
                try:
                    written = os.stat(path).st_mtime
                except OSError:
                    continue
                if written >= earliest:
                    found.append((written, path))
    except OSError:
        return ()
    return [path for _, path in sorted(found, reverse=True)[:MAX_LOGS]]
