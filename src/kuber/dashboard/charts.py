"""Charts as options of ECharts (echarts.apache.org): pure functions of view models."""

from collections.abc import Mapping, Sequence
from typing import Any

from kuber.dashboard.elements.data_table import milliseconds
from kuber.views.curve_selection import MAX_NAMED, POINTS, CurveSelection, mean_curve, thinned
from kuber.views.hub import HubEntity, HubView
from kuber.views.palette import Palette

Options = dict[str, Any]

DASHES = ("solid", [8, 3], [3, 2], [9, 3, 2, 3], [1, 1])  # distinguish lines without colour
SYMBOLS = {"published": "triangle", "kept": "circle", "undone": "diamond"}
MARK_NAMES = {"published": "published", "kept": "absorbed", "undone": "absorbed, not kept"}
MEAN = "mean"
MANY_MARKS = 300  # more are drawn small


def accuracy_chart(view: HubView, shown: CurveSelection, palette: Palette) -> Options:
    """Return a chart of every entity's accuracy over time, with marks on the highlighted lines."""
    series = [line(entity, shown, palette) for entity in view.entities.values() if entity.curve]
    if not shown.is_all:
        series.append(mean_line(view, palette))
    series += marks(view, shown, palette)
    return {
        **base(palette, "Accuracy over time, one line per entity."),
        "legend": legend(shown, palette),
        "xAxis": {"type": "time", **axis(palette)},
        "yAxis": _percents(palette, scale=True),
        "series": series,
    }


def legend(shown: CurveSelection, palette: Palette) -> Options:
    """Return the legend: highlighted lines and kinds of marks."""
    return legend_of(palette, [*shown.highlighted.values(), *([] if shown.is_all else [MEAN]), *MARK_NAMES.values()])


def line(entity: HubEntity, shown: CurveSelection, palette: Palette) -> Options:
    """Return the line of an entity."""
    highlighted = entity.id in shown.highlighted
    number = list(shown.highlighted).index(entity.id) if highlighted else 0
    colour = palette.colours[number % len(palette.colours)] if highlighted else palette.pale
    points = list(entity.curve) if highlighted else thinned(entity.curve, POINTS)
    return {
        "type": "line",
        "id": f"line {entity.id}",
        "name": shown.highlighted.get(entity.id, entity.name),
        "data": [[milliseconds(time), hundredths(accuracy)] for time, _, accuracy in points],
        "symbol": "none" if len(points) > 1 else "circle",
        "step": "end",
        "z": 3 if highlighted else 2,
        "lineStyle": {
            "width": 2 if highlighted else 1,
            "color": colour,
            "opacity": 1 if highlighted else 0.5,
            "type": DASHES[number % len(DASHES)] if highlighted else "solid",
        },
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": not highlighted},
        "silent": not highlighted,
    }


def mean_line(view: HubView, palette: Palette) -> Options:
    """Return the line of the mean over all entities."""
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
    """Return a series for each kind of mark on the highlighted lines."""
    highlighted = [view.entities[id] for id in shown.highlighted]
    small = sum(len(entity.marks) for entity in highlighted) > MANY_MARKS
    colour = {entity.id: palette.colours[place % len(palette.colours)] for place, entity in enumerate(highlighted)}
    return [
        {
            "type": "scatter",
            "id": kind,
            "name": MARK_NAMES[kind],
            "symbol": symbol,
            "symbolSize": (5 if small else 10) if kind == "kept" else (4 if small else 7),
            "z": 5,
            "itemStyle": symbol_style(kind, palette.pale if kind == "undone" else palette.ink, palette),
            "data": [
                {
                    "value": [milliseconds(mark.time), hundredths(mark.accuracy)],
                    "name": entity.name,
                    "entity": entity.id,
                    **({} if kind == "undone" else {"itemStyle": symbol_style(kind, colour[entity.id], palette)}),
                }
                for entity in highlighted
                for mark in entity.marks
                if mark.kind == kind
            ],
        }
        for kind, symbol in SYMBOLS.items()
    ]


def symbol_style(kind: str, colour: str, palette: Palette) -> Options:
    """Return the style of a mark: a ring for a kept absorption, else filled."""
    ring = {"color": palette.paper, "borderColor": colour, "borderWidth": 1.5}
    return ring if kind == "kept" else {"color": colour}


def bars_chart(
    labels: Sequence[str],
    bars: Mapping[str, Sequence[float | None]],
    palette: Palette,
    *,
    description: str,
    percent: bool,
) -> Options:
    """Return grouped bars; `bars` maps the name of a series to a value for each label."""
    return {
        **base(palette, description),
        "legend": legend_of(palette, list(bars)),
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


def rounds_chart(curves: Mapping[str, Sequence[float]], palette: Palette, *, description: str) -> Options:
    """Return a line for each name, over rounds from 1."""
    return {
        **base(palette, description),
        "legend": legend_of(palette, list(curves)),
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
    """Return a share as a percentage, as axes show it."""
    return round(100 * share, 2)


def base(palette: Palette, description: str) -> Options:
    """Return the options that all charts share. Screen readers read the description."""
    return {
        "animation": False,
        "aria": {"enabled": True, "label": {"description": description}},
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


def legend_of(palette: Palette, names: Sequence[str]) -> Options:
    """Return a legend of these series, hidden if they are too many."""
    return {
        "data": list(names),
        "type": "scroll",
        "top": 0,
        "itemWidth": 14,
        "itemHeight": 10,
        "textStyle": {"color": palette.ink},
        "pageTextStyle": {"color": palette.ink},
        "show": 1 < len(names) <= MAX_NAMED + len(MARK_NAMES) + 1,
    }


def axis(palette: Palette) -> Options:
    """Return the style of an axis."""
    return {
        "axisLabel": {"color": palette.ink, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": palette.grid}},
        "nameTextStyle": {"color": palette.ink},
        "splitLine": {"show": False},
    }


def _percents(palette: Palette, *, scale: bool = False, top: int | None = None) -> Options:
    options: Options = {
        "type": "value",
        "scale": scale,
        **axis(palette),
        "axisLabel": {"color": palette.ink, "formatter": "{value} %"},
        "splitLine": {"show": True, "lineStyle": {"color": palette.grid}},
    }
    return options if top is None else options | {"min": 0, "max": top}


def _slanted(labels: Sequence[str], palette: Palette) -> Options:
    crowded = sum(map(len, labels)) > 80  # characters
    return {"color": palette.ink, "interval": 0, "rotate": 40 if crowded else 0, "width": 90, "overflow": "truncate"}
