"""Lines about what goes wrong, in the live table and elsewhere."""

from typing import Any

import pytest

from kuber.cli.alert_lines import AlertLines
from kuber.cli.run_progress import LiveTable
from kuber.domain.event import Kind
from kuber.settings import Settings

from .test_run_progress import at, event, joined, terminal


@pytest.mark.parametrize(
    ("kind", "detail", "line"),
    [
        ("unreachable", {"reason": "No answer."}, "continues without the hub: No answer."),
        ("unreachable", {"reason": "No answer.", "service": "vault"}, "continues without the vault: No answer."),
        ("dropped", {"message": "delivery", "reason": "It is gone."}, "could not send a delivery: It is gone."),
        ("failed", {"action": "discover", "reason": "No."}, "failed to discover: No."),
        (
            "no-teachers",
            {"rounds": 3, "reason": "There are none."},
            "no teachers in 3 searches in a row: There are none.",
        ),
        ("rejected", {"knowledge": "0123456789", "reason": "It lies."}, "rejected 23456789: It lies."),
        ("queued", {}, None),
    ],
)
def test_what_goes_wrong_has_a_line(kind: Kind, detail: dict[str, Any], line: str | None) -> None:
    assert AlertLines().line(event(1, "0", 1, kind, **detail)) == line


def test_an_unreachable_hub_has_one_line_until_it_is_back() -> None:
    lines = AlertLines()
    away = event(1, "0", 1, "unreachable", reason="No answer.", service="registry")
    back = event(2, "0", 2, "reachable", service="registry")
    found = [lines.line(each) for each in (away, away, back, away)]
    assert found == [
        "continues without the hub: No answer.",
        None,
        "reaches the hub again",
        "continues without the hub: No answer.",
    ]
    assert lines.line(event(1, "1", 1, "unreachable", reason="No answer.", service="registry")) is not None


def test_the_live_table_shows_them_above() -> None:
    console = terminal(width=120)
    table = LiveTable(console, Settings(num_entities=1), clock=at(0))
    table.on_event(joined("0"))
    table.on_event(event(-5, "0", 1, "failed", action="report", reason="Long ago."))
    table.on_event(event(1, "0", 2, "no-teachers", rounds=3, reason="There are none."))
    assert console.export_text().splitlines() == [
        "entity 0  round 2  no teachers in 3 searches in a row: There are none."
    ]
