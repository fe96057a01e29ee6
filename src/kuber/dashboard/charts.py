"""The pictures of the pages, as options for ECharts (echarts.apache.org): pure functions of view models."""

from collections.abc import Mapping, Sequence
from typing import Any

from kuber.dashboard.elements.data_table import milliseconds
from kuber.views import HubEntity, HubView
from kuber.views.curve_selection import MAX_NAMED, POINTS, CurveSelection, mean_curve, thinned
from kuber.views.palette import Palette

Options = dict[str, Any]

DASHES = ("solid", [8, 3], [3, 2], [9, 3, 2, 3], [1, 1])  # told apart without colour
SIGNS = {"published": "triangle", "kept": "circle", "undone": "diamond"}
MEANINGS = {"published": "published", "kept": "absorbed and kept", "undone": "absorbed and undone"}
MEAN = "mean"
MANY = 300  # marks from which on they are drawn small


def accuracy_chart(view: HubView, shown: CurveSelection, palette: Palette) -> Options:
    """Accuracy over time of every entity, with what those that are drawn out published and absorbed."""
    series = [line(one, shown, palette) for one in view.entities.values() if one.curve]
    if not shown.is_all:
        series.append(mean_line(view, palette))
    series += marks(view, shown, palette)
    return {
        **base(palette, "Accuracy over time, a line for each entity."),
        "legend": legend(shown, palette),
        "xAxis": {"type": "time", **axis(palette)},
        "yAxis": _percents(palette, scale=True),
        "series": series,
    }


def legend(shown: CurveSelection, palette: Palette) -> Options:
    """The names of what is drawn out, and what the marks mean."""
    return names(palette, [*shown.highlighted.values(), *([] if shown.is_all else [MEAN]), *MEANINGS.values()])


def line(one: HubEntity, shown: CurveSelection, palette: Palette) -> Options:
    """The line of one entity."""
    out = one.id in shown.highlighted
    number = list(shown.highlighted).index(one.id) if out else 0
    colour = palette.colours[number % len(palette.colours)] if out else palette.pale
    points = list(one.curve) if out else thinned(one.curve, POINTS)
    return {
        "type": "line",
        "id": f"line {one.id}",
        "name": shown.highlighted.get(one.id, one.name),
        "data": [[milliseconds(time), hundredths(accuracy)] for time, _, accuracy in points],
        "symbol": "none" if len(points) > 1 else "circle",
        "step": "end",
        "z": 3 if out else 2,
        "lineStyle": {
            "width": 2 if out else 1,
            "color": colour,
            "opacity": 1 if out else 0.5,
            "type": DASHES[number % len(DASHES)] if out else "solid",
        },
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": not out},
        "silent": not out,
    }


def mean_line(view: HubView, palette: Palette) -> Options:
    """The mean of everybody over time."""
    points = mean_curve(list(view.entities.values()))
    return {
        "type": "line",
        "id": MEAN,
        "name": MEAN,
        "data": [[milliseconds(time), hundredths(value)] for time, value in points],
        "symbol": "none",
        "z": 4,
        "lineStyle": {"width": 3, "color": palette.ink},
        "itemStyle": {"color": palette.ink},
    }


def marks(view: HubView, shown: CurveSelection, palette: Palette) -> list[Options]:
    """What the entities that are drawn out published and absorbed: a series for each kind; small where many."""
    out = [view.entities[id] for id in shown.highlighted]
    small = sum(len(one.marks) for one in out) > MANY
    colour = {one.id: palette.colours[place % len(palette.colours)] for place, one in enumerate(out)}
    return [
        {
            "type": "scatter",
            "id": kind,
            "name": MEANINGS[kind],
            "symbol": sign,
            "symbolSize": (5 if small else 10) if kind == "kept" else (4 if small else 7),
            "z": 5,
            "itemStyle": sign_style(kind, palette.pale if kind == "undone" else palette.ink, palette),
            "data": [
                {
                    "value": [milliseconds(mark.time), hundredths(mark.accuracy)],
                    "name": one.name,
                    "entity": one.id,
                    **({} if kind == "undone" else {"itemStyle": sign_style(kind, colour[one.id], palette)}),
                }
                for one in out
                for mark in one.marks
                if mark.kind == kind
            ],
        }
        for kind, sign in SIGNS.items()
    ]


def sign_style(kind: str, colour: str, palette: Palette) -> Options:
    """How a sign of this kind is filled: what was kept is a ring."""
    ring = {"color": palette.paper, "borderColor": colour, "borderWidth": 1.5}
    return ring if kind == "kept" else {"color": colour}


def bars_chart(
    labels: Sequence[str], bars: Mapping[str, Sequence[float | None]], palette: Palette, *, told: str, percent: bool
) -> Options:
    """Bars side by side for each label: name of the bars -> a value for each label."""
    return {
        **base(palette, told),
        "legend": names(palette, list(bars)),
        "xAxis": {"type": "category", "data": list(labels), **axis(palette), "axisLabel": _slanted(labels, palette)},
        "yAxis": _percents(palette, top=100) if percent else {"type": "value", **axis(palette)},
        "series": [
            {
                "type": "bar",
                "name": name,
                "barMaxWidth": 36,
                "data": [None if value is None else hundredths(value) if percent else value for value in values],
                "itemStyle": {"color": palette.colours[number % len(palette.colours)]},
            }
            for number, (name, values) in enumerate(bars.items())
        ],
    }


def rounds_chart(curves: Mapping[str, Sequence[float]], palette: Palette, *, told: str) -> Options:
    """A line for each name, over rounds from 1."""
    return {
        **base(palette, told),
        "legend": names(palette, list(curves)),
        "xAxis": {"type": "value", "minInterval": 1, "min": 1, "name": "round", **axis(palette)},
        "yAxis": _percents(palette, scale=True),
        "series": [
            {
                "type": "line",
                "name": name,
                "data": [[round_, hundredths(value)] for round_, value in enumerate(values, start=1)],
                "symbolSize": 5,
                "lineStyle": {"type": DASHES[number % len(DASHES)]},
                "color": palette.colours[number % len(palette.colours)],
            }
            for number, (name, values) in enumerate(curves.items())
        ],
    }


def hundredths(share: float) -> float:
    """A share in per cent, as axes show it."""
    return round(100 * share, 2)


def base(palette: Palette, told: str) -> Options:
    """What all pictures share; `told` is said to those who do not see them."""
    return {
        "animation": False,
        "aria": {"enabled": True, "label": {"description": told}},
        "textStyle": {"color": palette.ink, "fontFamily": "inherit"},
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 8, "containLabel": True},
        "tooltip": {
            "trigger": "item",
            "confine": True,
            "backgroundColor": palette.paper,
            "borderColor": palette.grid,
            "textStyle": {"color": palette.ink},
        },
    }


def names(palette: Palette, told: Sequence[str]) -> Options:
    """A legend of these series, where they are not too many."""
    return {
        "data": list(told),
        "type": "scroll",
        "top": 0,
        "itemWidth": 14,
        "itemHeight": 10,
        "textStyle": {"color": palette.ink},
        "pageTextStyle": {"color": palette.ink},
        "show": 1 < len(told) <= MAX_NAMED + len(MEANINGS) + 1,
    }


def axis(palette: Palette) -> Options:
    """How an axis is drawn."""
    return {
        "axisLabel": {"color": palette.ink, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": palette.grid}},
        "nameTextStyle": {"color": palette.ink},
        "splitLine": {"show": False},
    }


def _percents(palette: Palette, *, scale: bool = False, top: int | None = None) -> Options:
    found: Options = {
        "type": "value",
        "scale": scale,
        **axis(palette),
        "axisLabel": {"color": palette.ink, "formatter": "{value} %"},
        "splitLine": {"show": True, "lineStyle": {"color": palette.grid}},
    }
    return found if top is None else found | {"min": 0, "max": top}


def _slanted(labels: Sequence[str], palette: Palette) -> Options:
    crowded = sum(map(len, labels)) > 80
    return {"color": palette.ink, "interval": 0, "rotate": 40 if crowded else 0, "width": 90, "overflow": "truncate"}
