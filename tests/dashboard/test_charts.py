"""The options of the charts: lines, marks, legends and descriptions."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.dashboard.charts import accuracy_chart, bars_chart, rounds_chart
from kuber.dashboard.lineage_chart import WINDOW, lineage_chart
from kuber.dashboard.pages.lineage import MAX_DELIVERIES, MAX_ENTITIES, chart_excerpt
from kuber.domain.auth import AuditEntry
from kuber.views.curve_selection import MAX_NAMED, POINTS, select_curves
from kuber.views.hub import HubView
from kuber.views.palette import DARK, LIGHT

START = datetime(2026, 1, 2, tzinfo=UTC)


def hub(entities: int, reports: int, deliveries: int = 0) -> HubView:
    """A hub whose entities reported, published once, and learned in turn."""
    view = HubView()
    events: list[tuple[str, str, str, dict[str, Any]]] = []
    events += [(f"e{index}", "enrol", f"ward {index}", {}) for index in range(entities)]
    for number in range(reports):
        events += [
            (f"e{index}", "report", f"e{index}", {"round": number, "correct": [index, number], "total": [1000, 1000]})
            for index in range(entities)
        ]
    events += [(f"e{index}", "publish", f"k{index}", {"round": 1, "accuracy": 0.5}) for index in range(entities)]
    for number in range(deliveries):
        student, teacher = number % entities, (number + 1) % entities
        detail = {
            "method": "merge",
            "round": 1,
            "accuracy_before": 0.2,
            "accuracy_after": 0.3,
            "kept": number % 2 == 0,
        }
        events.append((f"e{student}", "deliver", f"k{teacher}", {"teachers": [f"k{teacher}"], **detail}))
    for number, (actor, act, subject, detail) in enumerate(events, start=1):
        time = START + timedelta(seconds=number)
        view.apply(number, AuditEntry(time=time, actor=actor, act=act, subject=subject, detail=detail))
    return view


def series(options: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in options["series"] if item["type"] == kind]


def test_each_of_few_entities_has_a_named_line_with_marks() -> None:
    view = hub(3, 4, 6)
    options = accuracy_chart(view, select_curves(view), LIGHT)
    lines = series(options, "line")
    assert [item["name"] for item in lines] == ["ward 0", "ward 1", "ward 2"]
    assert [len(item["data"]) for item in lines] == [4, 4, 4]
    assert lines[2]["data"][-1][1] == pytest.approx(100 * 5 / 2000)
    marks = {item["id"]: len(item["data"]) for item in series(options, "scatter")}
    assert marks == {"published": 3, "kept": 3, "undone": 3}
    assert len({json.dumps(item["lineStyle"]) for item in lines}) == 3  # distinct without colour
    assert options["aria"]["enabled"] is True


def test_of_many_entities_all_are_drawn_and_some_named() -> None:
    view = hub(MAX_NAMED + 5, POINTS + 40, 30)
    shown = select_curves(view, "e4")
    options = accuracy_chart(view, shown, DARK)
    lines = series(options, "line")
    assert len(lines) == MAX_NAMED + 5 + 1  # and the mean
    assert {item["name"] for item in lines if not item.get("silent")} == {
        "best: ward 14",
        "worst: ward 0",
        "ward 4",
        "mean",
    }
    assert max(len(item["data"]) for item in lines if item.get("silent")) == POINTS
    drawn = {point["entity"] for item in series(options, "scatter") for point in item["data"]}
    assert drawn == {"e0", "e4", "e14"}


def test_options_are_plain_json() -> None:
    view = hub(3, 2, 4)
    rows = list(view.entities)
    for options in (
        accuracy_chart(view, select_curves(view), LIGHT),
        lineage_chart(view, list(view.deliveries), rows, DARK, None),
        bars_chart(["a", "b"], {"claimed": [0.5, None]}, LIGHT, description="x", percent=True),
        rounds_chart({"kuber": [0.1, 0.2]}, LIGHT, description="x"),
    ):
        assert json.loads(json.dumps(options, allow_nan=False))


def test_a_line_leads_from_each_publication_to_the_absorption() -> None:
    view = hub(3, 1, 4)
    options = lineage_chart(view, list(view.deliveries), list(view.entities), LIGHT, None)
    kept, undone = series(options, "lines")[1], series(options, "lines")[0]
    assert len(kept["data"]) == len(undone["data"]) == 2
    (start, teacher), (end, student) = kept["data"][0]["coords"]
    assert (student, teacher) == (0, 1)
    assert start < end
    points = {item["id"]: item["data"] for item in series(options, "scatter") if "id" in item}
    numbers = {point["value"][2] for data in points.values() for point in data}
    assert numbers == {delivery.number for delivery in view.deliveries}


def test_the_chart_is_zoomed_to_the_chosen_delivery() -> None:
    view = hub(4, 1, 3 * WINDOW)
    deliveries = list(view.deliveries)
    for chosen, first in ((None, 2 * WINDOW), (deliveries[0].number, 0)):
        options = lineage_chart(view, deliveries, list(view.entities), LIGHT, chosen)
        start = options["dataZoom"][0]["startValue"]
        assert start == round(1000 * deliveries[first].time.timestamp())
    assert lineage_chart(view, deliveries[:5], list(view.entities), LIGHT, None)["dataZoom"] == []


def test_the_chart_shows_an_excerpt_and_says_so() -> None:
    view = hub(MAX_ENTITIES + 10, 1, MAX_DELIVERIES + 100)
    found = list(view.deliveries)
    drawn = chart_excerpt(view, found, "", None)
    assert (len(drawn.deliveries), len(drawn.rows)) == (MAX_DELIVERIES, MAX_ENTITIES)
    assert drawn.deliveries[-1] is found[-1]
    counts = (
        f"{MAX_DELIVERIES} of {MAX_DELIVERIES + 100} deliveries and the {MAX_ENTITIES} busiest of {MAX_ENTITIES + 10}"
    )
    assert drawn.omitted == f"The chart shows {counts} entities; the table lists all."
    early = chart_excerpt(view, found, "", found[0].number)
    assert early.deliveries[0] is found[0]
    last = f"e{MAX_ENTITIES + 9}"
    assert last in chart_excerpt(view, found, last, None).rows
    assert chart_excerpt(view, found[:3], "", None).omitted == ""
