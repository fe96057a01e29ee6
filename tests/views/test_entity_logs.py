"""The logs of entities on this machine: found by id, read as they grow."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kuber.domain.event import Event, Kind
from kuber.domain.joining_report import JoiningReport, ReportRow
from kuber.views.entity_logs import EntityLogs
from kuber.wire.event import encode_event

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ROW = ReportRow(label="a", samples=20, alone=0.5, joined=0.75, low=0.05, high=0.45)
REPORT = JoiningReport(rounds=2, accuracy=ROW, balanced=ROW, classes=(ROW,))
DEPLOYED = {"model": "average", "round": 2, "accuracy": 0.9, "checkpoint": None, "forward": 0, "seconds": 0.0}


def write(folder: Path, *events: tuple[str | None, int, Kind, dict[str, Any]]) -> Path:
    """Append events, one minute apart."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.jsonl"
    with path.open("ab") as file:
        for number, (entity, round, kind, detail) in enumerate(events):
            time = NOON + timedelta(minutes=number)
            event = Event(time=time, entity=entity, seq=number, round=round, kind=kind, detail=detail)
            file.write(f"{encode_event(event)}\n".encode())
    return path


def joined(name: str, id: str) -> tuple[str, int, Kind, dict[str, Any]]:
    return name, 0, "joined", {"id": id}


def ended(name: str, round: int, **detail: Any) -> tuple[str, int, Kind, dict[str, Any]]:
    return name, round, "round-ended", {"accuracy": 0.9, "checkpoint": None} | detail


def test_an_entity_of_a_run_is_found_with_its_deployed_model(tmp_path: Path) -> None:
    write(
        tmp_path / "runs" / "one",
        joined("0", "id-0"),
        joined("1", "id-1"),
        ended("0", 1),
        ended("0", 2, deployed=DEPLOYED),
        ended("1", 1),
    )
    logs = EntityLogs(tmp_path / "runs", tmp_path / "nothing")
    found, other = (logs.find(id, joined=NOON) for id in ("id-0", "id-1"))
    assert found is not None
    assert found.deployed is not None
    assert (found.rounds, found.deployed.model, found.deployed.round, found.report) == (2, "average", 2, None)
    assert other is not None
    assert (other.rounds, other.deployed) == (1, None)  # of an older version, or an own loop
    assert logs.find("id-2", joined=NOON) is None


def test_a_report_is_read_when_it_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "entities" / "ward"
    path = write(folder, joined("ward", "id-9"))
    logs = EntityLogs(tmp_path / "runs", tmp_path / "entities")
    first = logs.find("id-9", joined=NOON)
    assert first is not None
    assert first.report is None
    write(folder, ("ward", 2, "compared", REPORT.as_dict()))
    with path.open("ab") as file:
        file.write(b'{"kind":"compared"')  # not yet whole
    again = logs.find("id-9", joined=NOON)
    assert again is not None
    assert (again.report, again.reported) == (REPORT, NOON)


def test_a_log_that_was_rewound_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "ward", joined("ward", "id-9"), ("ward", 2, "compared", REPORT.as_dict()))
    logs = EntityLogs(tmp_path)
    assert logs.find("id-9", joined=NOON)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    found = logs.find("id-9", joined=NOON)
    assert found is not None
    assert found.report is None


@pytest.mark.parametrize("line", [b"\xff", b'{"kind":"compared"}', b'{"kind":"joined","detail":{}}', b"[]"])
def test_a_line_that_is_no_event_is_skipped(tmp_path: Path, line: bytes) -> None:
    folder = tmp_path / "ward"
    folder.mkdir()
    (folder / "events.jsonl").write_bytes(line + b"\n")
    write(folder, joined("ward", "id-9"), ("ward", 1, "compared", {"rounds": 1}))
    found = EntityLogs(tmp_path).find("id-9", joined=NOON)
    assert found is not None
    assert found.report is None


def test_logs_that_ended_before_the_entity_joined_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "ward", joined("ward", "id-9"))
    written = NOON.timestamp()
    os.utime(path, (written, written))
    assert EntityLogs(tmp_path).find("id-9", joined=NOON + timedelta(hours=2)) is None
    assert EntityLogs(tmp_path).find("id-9", joined=NOON) is not None
