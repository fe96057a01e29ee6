"""Event log: one JSON line for each event, appended and never changed."""

import errno
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from kuber.domain.event import Event, Kind
from kuber.errors import CorruptKnowledgeError, SettingsError, first_line
from kuber.files import write_atomically
from kuber.wire.event import decode_event, encode_event

FILE_NAME = "events.jsonl"


class EventSink(Protocol):
    """Destination of an entity's events."""

    def append(self, *, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event: ...

    def sync(self) -> None: ...


class EventLog:
    """Appends events to a file that several processes may share.

    A line is written by one call in append mode, so lines of different processes never mix, and a reader sees
    whole lines only once their newline is there.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime]) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise SettingsError(f"The event log {path} cannot be written: {error.strerror}.") from None
        self._clock = clock

    def append(self, *, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Write one event; other processes see it when this returns."""
        event = Event(time=self._clock(), entity=entity, seq=seq, round=round, kind=kind, detail=detail)
        line = f"{encode_event(event)}\n".encode()
        written = os.write(self._descriptor, line)
        if written != len(line):
            self._drop(written)
            raise OSError(errno.ENOSPC, f"a line of {len(line)} bytes was written only in part")
        return event

    def _drop(self, written: int) -> None:
        """Remove a part of a line, unless another process has appended since: no reader could read the next one."""
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size == end:
            os.ftruncate(self._descriptor, end - written)

    def sync(self) -> None:
        """Return once all appended events would survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class EventTail:
    """Reads the events that were appended to a log since the last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> list[Event]:
        """Return the events in complete new lines, in their order in the file; none while there is no file.

        Raises CorruptKnowledgeError when the file cannot be read, or a line is no event.
        """
        if not self._path.exists():
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except OSError as error:
            raise CorruptKnowledgeError(f"The event log {self._path} cannot be read: {error.strerror}.") from None
        whole = text[: text.rfind(b"\n") + 1]
        if text and not self._position and not whole and not text.startswith(b"{"):
            whole = text  # no log begins like this
        events = []
        for line in whole.splitlines():
            try:
                events.append(decode_event(line.decode()))
            except ValueError as error:
                raise CorruptKnowledgeError(
                    f"The event log {self._path} has a line that is no event ({first_line(error)}); remove that "
                    "line, or start a new run."
                ) from None
        self._position += len(whole)
        return events


def read_events(path: Path) -> list[Event]:
    """Return every complete event in the log at `path`."""
    return EventTail(path).read()


def rewind(path: Path, *, reached: Mapping[str, int]) -> None:
    """Drop events newer than the checkpoints: those of an entity from number `reached[entity]` on.

    A killed entity repeats what it had not saved, and would log it a second time. A line that was cut off is dropped
    too. The file is replaced atomically. Raises CorruptKnowledgeError when it cannot be read, OSError when it cannot
    be written.
    """
    kept = [event for event in read_events(path) if event.entity is None or event.seq < reached.get(event.entity, 0)]
    write_atomically(path, "".join(f"{encode_event(event)}\n" for event in kept).encode())
