"""The pictures as data: what is drawn of whom, with which words for those who do not see it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuber.dashboard.charts import accuracy_chart, bars_chart, rounds_chart
from kuber.dashboard.lineage_chart import AT_ONCE, lineage_chart
from kuber.dashboard.pages.lineage import DRAWN, ROWS, picture
from kuber.domain.auth import AuditEntry
from kuber.views import HubView
from kuber.views.curve_selection import MAX_NAMED, POINTS, select_curves
from kuber.views.palette import DARK, LIGHT

START = datetime(2026, 1, 2, tzinfo=UTC)


def hub(entities: int, reports: int, deliveries: int = 0) -> HubView:
    """A hub in which everybody reported so often and published once, and the first ones learnt in turn."""
    view = HubView()
    told: list[tuple[str, str, str, dict[str, Any]]] = []
    told += [(f"e{one}", "enrol", f"ward {one}", {}) for one in range(entities)]
    for number in range(reports):
        told += [
            (f"e{one}", "report", f"e{one}", {"round": number, "correct": [one, number], "total": [1000, 1000]})
            for one in range(entities)
        ]
    told += [(f"e{one}", "publish", f"k{one}", {"round": 1, "accuracy": 0.5}) for one in range(entities)]
    for number in range(deliveries):
        student, teacher = number % entities, (number + 1) % entities
        detail = {
            "method": "merge",
            "round": 1,
            "accuracy_before": 0.2,
            "accuracy_after": 0.3,
            "kept": number % 2 == 0,
        }
        told.append((f"e{student}", "deliver", f"k{teacher}", {"teachers": [f"k{teacher}"], **detail}))
    for number, (actor, act, subject, detail) in enumerate(told, start=1):
        time = START + timedelta(seconds=number)
        view.apply(number, AuditEntry(time=time, actor=actor, act=act, subject=subject, detail=detail))
    return view


def series(options: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in options["series"] if one["type"] == kind]


def test_few_have_a_named_line_each_with_their_marks() -> None:
    view = hub(3, 4, 6)
    options = accuracy_chart(view, select_curves(view), LIGHT)
    lines = series(options, "line")
    assert [one["name"] for one in lines] == ["ward 0", "ward 1", "ward 2"]
    assert [len(one["data"]) for one in lines] == [4, 4, 4]
    assert lines[2]["data"][-1][1] == pytest.approx(100 * 5 / 2000)
    marks = {one["id"]: len(one["data"]) for one in series(options, "scatter")}
    assert marks == {"published": 3, "kept": 3, "undone": 3}
    assert len({json.dumps(one["lineStyle"]) for one in lines}) == 3  # told apart, also without colour
    assert options["aria"]["enabled"] is True


def test_of_a_crowd_all_are_drawn_and_only_some_named() -> None:
    view = hub(MAX_NAMED + 5, POINTS + 40, 30)
    shown = select_curves(view, "e4")
    options = accuracy_chart(view, shown, DARK)
    lines = series(options, "line")
    assert len(lines) == MAX_NAMED + 5 + 1  # and their mean
    assert {one["name"] for one in lines if not one.get("silent")} == {
        "best: ward 14",
        "worst: ward 0",
        "ward 4",
        "mean",
    }
    assert max(len(one["data"]) for one in lines if one.get("silent")) == POINTS
    drawn = {point["entity"] for one in series(options, "scatter") for point in one["data"]}
    assert drawn == {"e0", "e4", "e14"}


def test_options_are_plain_json() -> None:
    view = hub(3, 2, 4)
    rows = list(view.entities)
    for options in (
        accuracy_chart(view, select_curves(view), LIGHT),
        lineage_chart(view, list(view.deliveries), rows, DARK, None),
        bars_chart(["a", "b"], {"claimed": [0.5, None]}, LIGHT, told="x", percent=True),
        rounds_chart({"kuber": [0.1, 0.2]}, LIGHT, told="x"),
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
    points = {one["id"]: one["data"] for one in series(options, "scatter") if "id" in one}
    numbers = {point["value"][2] for data in points.values() for point in data}
    assert numbers == {one.number for one in view.deliveries}


def test_the_window_is_around_the_chosen_delivery() -> None:
    view = hub(4, 1, 3 * AT_ONCE)
    deliveries = list(view.deliveries)
    for chosen, first in ((None, 2 * AT_ONCE), (deliveries[0].number, 0)):
        options = lineage_chart(view, deliveries, list(view.entities), LIGHT, chosen)
        begins = options["dataZoom"][0]["startValue"]
        assert begins == round(1000 * deliveries[first].time.timestamp())
    assert lineage_chart(view, deliveries[:5], list(view.entities), LIGHT, None)["dataZoom"] == []


def test_the_picture_holds_what_fits_and_says_what_is_left_out() -> None:
    view = hub(ROWS + 10, 1, DRAWN + 100)
    found = list(view.deliveries)
    drawn = picture(view, found, "", None)
    assert (len(drawn.deliveries), len(drawn.rows)) == (DRAWN, ROWS)
    assert drawn.deliveries[-1] is found[-1]
    assert drawn.left_out == (
        f"The picture shows {DRAWN} of {DRAWN + 100} deliveries and the {ROWS} busiest of {ROWS + 10} entities; "
        "the table has all."
    )
    early = picture(view, found, "", found[0].number)
    assert early.deliveries[0] is found[0]
    last = f"e{ROWS + 9}"
    assert last in picture(view, found, last, None).rows
    assert picture(view, found[:3], "", None).left_out == ""
