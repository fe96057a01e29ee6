"""`kuber watch` on a hub that runs, dies and comes back, and on narrow and wide terminals."""

import io
import os
import queue
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.cli.console import Console
from kuber.cli.watch import HubLines, HubScreen
from kuber.client.registry import HttpRegistry
from kuber.domain.auth import OPERATOR_TOKEN_FILE, AuditEntry
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.views.hub import HubView
from tests.fixtures.commands import Command, called
from tests.fixtures.hub import running_hub, running_service
from tests.fixtures.waiting import LIMIT

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def entry(seconds: float, actor: str, act: str, subject: str, /, **detail: Any) -> AuditEntry:
    return AuditEntry(time=START + timedelta(seconds=seconds), actor=actor, act=act, subject=subject, detail=detail)


def story(entities: int) -> list[AuditEntry]:
    """Every entity joins, reports three rounds and publishes; the second learns from the first."""
    entries = []
    for index in range(entities):
        id = f"id{index}"
        entries.append(entry(index, id, "enrol", f"ward {index}"))
        entries += [
            entry(100 + index, id, "report", id, round=n, correct=[10 * n * n + index, 0], total=[100, 100])
            for n in (1, 2, 3)
        ]
        entries.append(entry(110 + index, id, "publish", f"k{index}", round=3))
    delivery = {"method": "guide", "round": 3, "accuracy_before": 0.25, "accuracy_after": 0.4}
    entries.append(entry(150, "id1", "deliver", "k0", teachers=["k0"], kept=True, **delivery))
    return [*entries, entry(160, "id1", "deliver", "k0", teachers=["k0"], kept=False, **delivery)]


def drawn(width: int, height: int, entries: list[AuditEntry], *, offline: str | None = None) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, record=True)
    screen = HubScreen(console, HubView(), "http://hub:5001", clock=lambda: START + timedelta(seconds=170))
    for number, each in enumerate(entries, start=1):
        screen.apply(number, each)
    if offline:
        screen.mark_offline(offline)
    console.print(screen.render())
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_shows_entities_and_who_learned_from_whom(width: int) -> None:
    lines = drawn(width, 24, story(3))
    assert max(map(len, lines)) <= width
    assert lines[:2] == ["KUber http://hub:5001", "3 of 3 entities online, 3 records, 1 of 2 deliveries kept"]
    rows = {line.split()[2]: line.split() for line in lines if line.startswith("● ward")}
    curve = ["▁▄█"] if width == 120 else []
    assert rows["0"][3:] == ["3", "45.0%", *curve, "1", "0/0", "-", "1", "1", "min"]
    assert rows["1"][3:] == ["3", "45.5%", *curve, "1", "1/2", "+15.0", "0", "10", "s"]
    assert lines[-1] == "  20 s  ward 1 <- ward 0: guide in round 3, 25.0% -> 40.0% (+15.0)"
    assert lines[-2].endswith("(+15.0), not kept")


def test_never_higher_than_the_terminal() -> None:
    lines = drawn(80, 24, story(50), offline="No answer.")
    assert len(lines) <= 24
    assert "No answer. Retrying." in lines
    shown = sum(line.startswith("● ward") for line in lines)
    assert f"and {50 - shown} more" in lines


def test_an_empty_hub_says_how_to_start() -> None:
    assert any("No entity has joined yet" in line for line in drawn(80, 24, []))


def test_a_name_cannot_write_to_the_terminal() -> None:
    lines = drawn(80, 24, [entry(0, "a", "enrol", "\x1b[2J[red]evil")])
    assert any("[2J[red]evil" in line and "\x1b" not in line for line in lines)


def test_lines_say_once_that_the_hub_is_unreachable() -> None:
    console = Console(width=80, file=io.StringIO())
    lines = HubLines(console, HubView())
    lines.mark_online()
    for act in (*[lambda: lines.mark_offline("Gone.")] * 2, lines.mark_online, lines.mark_online):
        act()
    assert console.file.getvalue().splitlines() == ["Gone. Retrying.", "The registry answers again."]  # type: ignore[attr-defined]


def test_a_line_is_folded_between_words() -> None:
    console = Console(file=io.StringIO())
    name = "a ward with a long name " * 5
    lines = HubLines(console, HubView())
    lines.apply(1, entry(0, "a", "enrol", name.strip()))
    first, *rest = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(first) <= 120
    assert rest
    assert " ".join([first, *(line.strip() for line in rest)]).endswith(f"{name.strip()} joined")


def test_says_which_events_the_hub_has_removed() -> None:
    sentence = "The hub has removed reports and deliveries up to 2026-01-02 03:04 UTC."
    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True, record=True)
    screen = HubScreen(console, HubView(), "http://hub:5001", clock=lambda: START)
    for number, each in enumerate(story(50), start=1):
        screen.apply(number, each)
    screen.note_missed(START)
    console.print(screen.render())
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert sentence in lines
    assert len(lines) <= 24
    printed = Console(width=80, file=io.StringIO())
    HubLines(printed, HubView()).note_missed(START)
    assert printed.file.getvalue().splitlines() == [sentence]  # type: ignore[attr-defined]


def watch(*arguments: str) -> Command:
    return Command("watch", *arguments, environ=os.environ | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1"})


@pytest.mark.process
def test_follows_a_hub_that_dies_and_comes_back(tmp_path) -> None:
    printed_lines: queue.Queue[str] = queue.Queue()

    def read(stream: io.TextIOBase) -> None:
        for line in stream:
            printed_lines.put(line.rstrip())

    def until(wanted: str) -> None:
        while wanted not in printed_lines.get(timeout=LIMIT):
            pass

    token = tmp_path / "registry" / OPERATOR_TOKEN_FILE
    with running_hub(tmp_path, "--open-enrolment") as hub, HttpRegistry(hub.registry) as registry:
        me = registry.register("ward")
        watching = watch("--registry", hub.registry, "--admin-token", str(token))
        threading.Thread(target=read, args=(watching.stdout,), daemon=True).start()
        until("ward joined")
        registry.report(
            me.id, round=4, evaluation=Evaluation(correct=(3,), total=(4,), test_set=Digest.of(b"samples"))
        )
        until("ward ended round 4, accuracy 75.0%")
        credentials = registry.credentials
    try:
        until("Retrying.")
        port = hub.registry.rpartition(":")[2]
        options = ("--port", port, "--vault", hub.vault, "--secret", str(tmp_path / "secret"))
        with (
            running_service("registry", tmp_path, *options),
            HttpRegistry(hub.registry, credentials=credentials) as registry,
        ):
            until("The registry answers again.")
            registry.report(me.id, round=5)
            until("ward ended round 5")
            once = watch("--registry", hub.registry, "--admin-token", str(token), "--once")
            printed, errors = once.communicate()
            assert once.returncode == 0, errors
            assert "1 of 1 entities online" in printed
    finally:
        watching.terminate()
        watching.wait()


def test_a_wrong_address_is_one_sentence() -> None:
    done = called("watch", "--registry", "http://127.0.0.1:9", "--admin-token", os.devnull)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
