"""The progress of a run, with and without a terminal."""

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.cli.console import Console, folded
from kuber.cli.run_progress import LiveTable, PlainLines, live_view
from kuber.domain.event import Event, Kind
from kuber.settings import Settings

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
K1 = "9c1f2d3a4b5c6d7e"


def event(seconds: float, entity: str | None, round: int, kind: Kind, /, **detail: Any) -> Event:
    return Event(time=START + timedelta(seconds=seconds), entity=entity, seq=0, round=round, kind=kind, detail=detail)


def joined(name: str) -> Event:
    detail = {"samples": 1834, "class_counts": [1000, 834], "architecture": "cnn", "device": "cpu"}
    return event(0, name, 0, "joined", id=f"id-{name}", **detail, precision="float32", threads=1)


def evaluated(seconds: float, name: str, round: int, accuracy: float) -> Event:
    figures = {"correct": [1], "total": [2], "accuracy": accuracy, "seconds": 1.0}
    return event(seconds, name, round, "evaluated", stage="trained", **figures)


def one_round(name: str, round: int, accuracy: float = 0.412) -> list[Event]:
    """Ten seconds in which an entity trains and publishes."""
    began = 10 * (round - 1)
    return [
        event(began, name, round, "round-started"),
        evaluated(began + 8, name, round, accuracy),
        event(began + 9, name, round, "published", knowledge=K1, digest="sha256:" + "0" * 64, bytes=500),
        event(began + 10, name, round, "round-ended", accuracy=accuracy, checkpoint="round-0001.safetensors"),
    ]


def terminal(width: int = 80, height: int = 24) -> Console:
    return Console(width=width, height=height, file=io.StringIO(), force_terminal=True, record=True)


def screen(table: LiveTable, console: Console) -> list[str]:
    console.print(table.render())
    return [line.rstrip() for line in console.export_text().splitlines()]


def at(seconds: float) -> Callable[[], datetime]:
    return lambda: START + timedelta(seconds=seconds)


def test_the_view_suits_the_console() -> None:
    settings = Settings()
    assert isinstance(live_view(settings, terminal()), LiveTable)
    assert isinstance(live_view(settings, Console(file=io.StringIO())), PlainLines)


class TestLiveTable:
    @pytest.mark.parametrize("width", [80, 120])
    def test_shows_the_final_evaluation(self, width: int) -> None:
        console = terminal(width)
        table = LiveTable(console, Settings(num_entities=1, num_rounds=20), clock=at(14))
        table.on_event(joined("0"))
        table.on_evaluation(5, 20)
        last = screen(table, console)[-1]
        assert last.startswith("held-out test set  ━━━━━━━━━━")
        assert last.endswith("  5 of 20 models")

    @pytest.mark.parametrize("width", [80, 120])
    def test_shows_every_entity_in_whole_words(self, width: int) -> None:
        console = terminal(width)
        table = LiveTable(console, Settings(num_entities=2, num_rounds=8), clock=at(14))
        for each in [joined("0"), joined("1"), *one_round("0", 1), event(10, "0", 2, "round-started")]:
            table.on_event(each)
        table.on_progress("0", 0.5)
        header, _, heads, first, second = screen(table, console)
        assert header == "KUber kuber on cifar10, 2 entities, seed 0   0:14"
        curve = ["over", "time"] if width == 120 else []
        assert heads.split() == [
            "entity",
            "round",
            "work",
            "accuracy",
            *curve,
            "published",
            "absorbed",
            "ETA",
            "state",
        ]
        drawn = "▄ +" if width == 120 else ""
        assert re.fullmatch(rf"0 +2/8 +[━╸╺]+ +41\.2% +{drawn}1 +0 +1:06 +training", first)
        assert re.fullmatch(r"1 +0/8 +[━╸╺]+ +- +0 +0 +- +waiting", second)
        assert "…" not in header + heads + first + second

    def test_shows_the_time_left(self) -> None:
        console = terminal()
        table = LiveTable(console, Settings(num_entities=1, num_rounds=3), clock=at(12))
        for each in [joined("0"), *one_round("0", 1)]:
            table.on_event(each)
        assert screen(table, console)[0] == "KUber kuber on cifar10, 1 entity, seed 0   0:12, about 0:18 left"

    def test_says_waiting_until_a_work_step_has_its_turn(self) -> None:
        console = terminal()
        table = LiveTable(console, Settings(), clock=at(1))
        table.on_event(joined("0"))
        table.on_event(event(0, "0", 1, "round-started"))
        assert screen(table, console)[-1].endswith("waiting")
        table.on_progress("0", 0.01)
        assert screen(table, console)[-1].endswith("training")

    def test_is_no_higher_than_the_terminal(self) -> None:
        console = terminal(height=16)
        table = LiveTable(console, Settings(num_entities=30), clock=at(1))
        for number in range(30):
            table.on_event(joined(str(number)))
            table.on_event(evaluated(1, str(number), 1, 0.5))
        for busy in ("3", "17"):
            table.on_event(event(1, busy, 1, "round-started"))
            table.on_progress(busy, 0.2)
        lines = screen(table, console)
        assert len(lines) < 16
        names = [line.split()[0] for line in lines[3:-1]]
        assert {"3", "17"} <= set(names)
        assert names == sorted(names, key=int)
        assert lines[-1] == f"and {30 - len(names)} more: {30 - len(names)} deciding; mean accuracy 50.0%"

    @pytest.mark.parametrize(("height", "count"), [(24, 5), (11, 2), (9, 0)])
    def test_shows_the_latest_deliveries_where_there_is_room(self, height: int, count: int) -> None:
        console = terminal(height=height)
        table = LiveTable(console, Settings(num_entities=2, num_rounds=8), clock=at(1))
        for name in ("0", "1"):
            table.on_event(joined(name))
        for round in range(1, 8):
            kept = round != 7
            detail = {"teachers": [K1], "publishers": ["id-1"], "method": "merge", "before": 0.25, "after": 0.5}
            figures = {"samples": 0, "forward": 0, "seconds": 0.0}
            table.on_event(event(round, "0", round, "absorbed", **detail, **figures, kept=kept))
        lines = screen(table, console)
        assert len(lines) < height
        assert lines[5:7] == (["", "0 <- 1: merge in round 7, 25.0% -> 50.0% (+25.0), not kept"] if count else [])
        assert sum(" <- " in line for line in lines) == count

    @pytest.mark.parametrize("width", [80, 200])
    def test_a_delivery_has_one_line(self, width: int) -> None:
        console = terminal(width)
        table = LiveTable(console, Settings(num_entities=2, num_rounds=8), clock=at(1))
        table.on_event(joined("0"))
        reason = f"All. Kept: loss 1.9, tolerated 5.0 points; {'x' * 30} fell by 27.8 points, from 90.0 % to 62.2 %."
        detail = {"teachers": [K1], "publishers": ["id-1"], "method": "merge", "before": 0.25, "after": 0.5}
        figures = {"samples": 0, "forward": 0, "seconds": 0.0, "reason": reason}
        table.on_event(event(1, "0", 1, "absorbed", **detail, **figures, kept=True))
        (line,) = (line for line in screen(table, console) if " <- " in line)
        assert len(line) == min(width, 120)
        assert line.endswith("…")

    @pytest.mark.parametrize("width", [80, 200])
    def test_an_alert_is_folded(self, width: int) -> None:
        console = terminal(width)
        table = LiveTable(console, Settings(num_entities=1), clock=at(0))
        table.on_event(event(1, "0", 1, "failed", action="publish", reason="word " * 40))
        lines = console.export_text().splitlines()
        assert (len(lines), max(map(len, lines)) <= min(width, 120)) == (3 if width == 200 else 4, True)
        assert lines[1].startswith("    word")

    def test_writes_only_to_its_console(self, capsys: pytest.CaptureFixture[str]) -> None:
        console = terminal()
        with LiveTable(console, Settings(num_entities=1), clock=at(0)) as table:
            table.echo("The registry is at http://127.0.0.1:5001.")
            table.on_event(joined("0"))
        text = console.export_text()
        assert "The registry is at http://127.0.0.1:5001.\n" in text
        assert "waiting" in text
        assert capsys.readouterr() == ("", "")


class TestPlainLines:
    @pytest.fixture
    def console(self) -> Console:
        return Console(file=io.StringIO(), width=40)

    @staticmethod
    def lines(console: Console) -> list[str]:
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().splitlines()

    def test_a_line_for_each_notable_event(self, console: Console) -> None:
        with PlainLines(console, rounds=8, clock=at(0)) as view:
            view.echo("Starting.")
            for each in [joined("0"), *one_round("0", 3)]:
                view.on_event(each)
            view.on_progress("0", 0.5)
        assert self.lines(console) == [
            "Starting.",
            "entity 0  joined with 1,834 samples",
            "entity 0  round 3/8  accuracy 41.2%  published 4b5c6d7e",
        ]

    def test_the_final_evaluation_is_a_line_every_few_seconds(self, console: Console) -> None:
        seconds = iter([0, 10, 12, 16, 20, 22])
        with PlainLines(console, clock=lambda: START + timedelta(seconds=next(seconds))) as view:
            for done in range(5):
                view.on_evaluation(done, 4)
        assert self.lines(console) == ["2 of 4 models are evaluated on the held-out test set"]

    def test_a_kept_loss_says_why(self, console: Console) -> None:
        reason = "The only relative; found 60.0 %. Kept: loss 1.9, tolerated 5.0 points."
        detail = {"publishers": ["id-1"], "before": 1.0, "after": 0.981, "reason": reason}
        with PlainLines(console, rounds=8, clock=at(0)) as view:
            view.on_event(joined("1"))
            view.on_event(event(1, "0", 3, "absorbed", **detail, kept=True))
            view.on_event(event(1, "0", 4, "absorbed", **detail, kept=False))
        change = "accuracy 100.0% -> 98.1%"
        assert self.lines(console)[1:] == [
            f"entity 0  round 3/8  {change}  absorbed knowledge of entity 1; loss 1.9, tolerated 5.0 points",
            f"entity 0  round 4/8  {change}  did not keep knowledge of entity 1",
        ]

    @pytest.mark.parametrize(("width", "terminal", "lines"), [(200, True, 2), (200, False, 2), (80, True, 3)])
    def test_a_long_line_is_folded_between_words(self, width: int, terminal: bool, lines: int) -> None:
        console = Console(file=io.StringIO(), width=width, force_terminal=terminal)
        fell = "loss 1.9, tolerated 5.0 points; airplane fell by 27.8 points, from 90.0 % to 62.2 %"
        detail = {"publishers": ["id-1", "id-2", "id-3"], "before": 1.0, "after": 0.981, "kept": True}
        with PlainLines(console, rounds=8, clock=at(0)) as view:
            view.on_event(event(1, "0", 3, "absorbed", **detail, reason=f"The only relative. Kept: {fell}."))
        first, *others = found = self.lines(console)
        assert (len(found), max(map(len, found)) <= min(width, 120)) == (lines, True)
        assert first.startswith("entity 0  round 3/8  accuracy 100.0% -> 98.1%  absorbed knowledge of entity")
        assert " ".join([first, *map(str.lstrip, others)]).endswith(f"id-1, id-2, id-3; {fell}")
        assert all(line.startswith("    ") for line in others)

    def test_an_entity_may_discover_before_it_is_evaluated(self, console: Console) -> None:
        with PlainLines(console, rounds=8, clock=at(0)) as view:
            view.on_event(joined("0"))
            view.on_event(event(1, "0", 1, "sought", candidates=0))
        assert self.lines(console)[1:] == ["entity 0  round 1/8  found no better knowledge"]

    @pytest.mark.parametrize(
        ("kind", "detail", "expected"),
        [
            ("sought", {"candidates": 0}, ["accuracy 35.0%  found no better knowledge"]),
            ("sought", {"candidates": 3}, ["accuracy 35.0%"]),  # a line follows when the round ends
            (
                "rejected",
                {"knowledge": K1, "reason": "It is \x1b[31mdamaged.", "bytes": 5},
                ["rejected 4b5c6d7e: It is \\x1b[31mdamaged."],
            ),
            (
                "absorbed",
                {"teachers": [K1], "publishers": ["id-0"], "before": 0.35, "after": 0.384, "kept": True},
                ["accuracy 35.0% -> 38.4%  absorbed knowledge of entity 0"],
            ),
            (
                "absorbed",
                {"teachers": [K1], "publishers": ["id-9"], "before": 0.35, "after": 0.3, "kept": False},
                ["accuracy 35.0% -> 30.0%  did not keep knowledge of entity id-9"],
            ),
        ],
    )
    def test_what_came_of_a_round(
        self, console: Console, kind: Kind, detail: dict[str, Any], expected: list[str]
    ) -> None:
        view = PlainLines(console, clock=at(0))
        view.on_event(joined("0"))
        view.on_event(evaluated(1, "1", 4, 0.35))
        view.on_event(event(2, "1", 4, kind, **detail))
        view.on_event(event(3, "1", 4, "round-ended", accuracy=0.35, checkpoint="round-0004.safetensors"))
        assert self.lines(console)[1:] == [f"entity 1  round 4  {line}" for line in expected]

    def test_events_of_an_earlier_session_print_nothing(self, console: Console) -> None:
        view = PlainLines(console, rounds=8, clock=at(15))
        for each in [joined("0"), *one_round("0", 1), *one_round("0", 2)]:
            view.on_event(each)
        assert self.lines(console) == ["entity 0  round 2/8  accuracy 41.2%  published 4b5c6d7e"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a  bc", ["a  bc"]),
        ("a  bcdefg  h", ["a", "    bcdefg", "    h"]),  # a word wider than the line stays whole
        ("日本 日本 x", ["日本", "    日本", "    x"]),  # each is two columns wide
        ("a b; c d; e", ["a b;", "    c d;", "    e"]),  # after a clause rather than within one
        ("a; b; c d e f g h", ["a; b;", "    c d", "    e f", "    g h"]),
    ],
)
def test_lines_are_folded_between_clauses_or_words(text: str, lines: list[str]) -> None:
    assert folded(text, 8) == lines
