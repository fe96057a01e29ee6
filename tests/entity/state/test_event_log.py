"""The event log: appended by several processes, read while it grows, repaired after a kill."""

import multiprocessing
from datetime import UTC, datetime

import pytest

from kuber.entity.state.event_log import EventLog, EventTail, read_events, rewind

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def write(path, entity, seqs):
    log = EventLog(path, clock=lambda: NOON)
    for seq in seqs:
        log.append(entity=entity, seq=seq, round=1, kind="trained", detail={"samples": seq, "text": "x" * 500})
    log.close()


def test_appended_events_are_read_back(path):
    log = EventLog(path, clock=lambda: NOON)
    written = log.append(entity=None, seq=0, round=0, kind="run-started", detail={"version": "1", "resumed": False})
    log.sync()
    assert read_events(path) == [written]
    assert written.time == NOON


def test_a_tail_sees_only_new_and_only_whole_lines(path):
    tail = EventTail(path)
    assert tail.read() == []
    write(path, "0", range(2))
    assert [event.seq for event in tail.read()] == [0, 1]
    whole = path.read_bytes().splitlines(keepends=True)[0]
    with path.open("ab") as file:
        file.write(whole[:100])
        file.flush()
        assert tail.read() == []
        file.write(whole[100:])
    assert [event.seq for event in tail.read()] == [0]
    assert tail.read() == []


@pytest.mark.process
def test_lines_of_several_processes_never_mix(path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write, args=(path, name, range(300))) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    events = read_events(path)
    for name in "abc":
        assert [event.seq for event in events if event.entity == name] == list(range(300))


def test_rewinding_drops_events_newer_than_the_checkpoint(path):
    write(path, None, range(1))
    write(path, "0", range(5))
    write(path, "1", range(4))
    with path.open("ab") as file:
        file.write(b'{"time": "2026-01')  # killed in the middle of a line
    rewind(path, reached={"0": 3})
    kept = [(event.entity, event.seq) for event in read_events(path)]
    assert kept == [(None, 0), ("0", 0), ("0", 1), ("0", 2)]
    write(path, "0", [3])
    assert read_events(path)[-1].seq == 3


def test_rewinding_a_log_that_is_not_there_makes_an_empty_one(path):
    rewind(path, reached={})
    assert read_events(path) == []
