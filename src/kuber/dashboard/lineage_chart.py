"""Chart of who taught whom, as options of ECharts."""

from collections.abc import Sequence

from kuber.dashboard.charts import MARK_NAMES, SYMBOLS, Options, axis, base, legend_of, symbol_style
from kuber.dashboard.elements.data_table import milliseconds
from kuber.views.delivery import HubDelivery
from kuber.views.hub import HubView
from kuber.views.palette import Palette

WINDOW = 80  # deliveries that are visible at first


def lineage_chart(
    view: HubView, deliveries: Sequence[HubDelivery], rows: Sequence[str], palette: Palette, chosen: int | None
) -> Options:
    """Return lines over time from each teacher's publication to the student's absorption; `rows` are entity ids.

    The points of the series `kept` and `undone` have the number of their delivery as third value.
    """
    place = {id: number for number, id in enumerate(rows)}
    published = {id: (milliseconds(record.time), record.publisher) for id, record in view.records.items()}
    series: list[Options] = []
    for kind, kept, colour in (("undone", False, palette.pale), ("kept", True, palette.colours[0])):
        drawn = [delivery for delivery in deliveries if delivery.kept is kept and delivery.student in place]
        lines = [
            {
                "coords": [
                    [published[id][0], place[published[id][1]]],
                    [milliseconds(delivery.time), place[delivery.student]],
                ],
                **({"lineStyle": {"width": 3, "opacity": 1}} if delivery.number == chosen else {}),
            }
            for delivery in drawn
            for id in delivery.teachers
            if id in published and published[id][1] in place
        ]
        thin = len(deliveries) > 200
        series.append(
            {
                "type": "lines",
                "coordinateSystem": "cartesian2d",
                "silent": True,
                "z": 2,
                "lineStyle": {"color": colour, "width": 1, "opacity": 0.25 if thin else 0.6, "curveness": 0.12},
                "data": lines,
            }
        )
        series.append(
            {
                "type": "scatter",
                "id": kind,
                "name": MARK_NAMES[kind],
                "z": 4,
                "symbol": SYMBOLS[kind],
                "symbolSize": 9 if thin else 12,
                "cursor": "pointer",
                "itemStyle": symbol_style(kind, colour, palette),
                "data": [
                    {
                        "value": [milliseconds(delivery.time), place[delivery.student], delivery.number],
                        **({"symbolSize": 20} if delivery.number == chosen else {}),
                    }
                    for delivery in drawn
                ],
            }
        )
    series.append(
        {
            "type": "scatter",
            "name": MARK_NAMES["published"],
            "silent": True,
            "z": 3,
            "symbolSize": 4,
            "itemStyle": {"color": palette.ink},
            "data": [
                [milliseconds(view.records[id].time), place[view.records[id].publisher]]
                for id in dict.fromkeys(id for delivery in deliveries for id in delivery.teachers)
                if id in view.records and view.records[id].publisher in place
            ],
        }
    )
    return {
        **base(palette, "Who taught whom: a line from each publication to each absorption of it."),
        "tooltip": {"show": False},
        "legend": legend_of(palette, list(MARK_NAMES.values())),
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 56, "containLabel": True},
        "xAxis": {"type": "time", **axis(palette)},
        "dataZoom": _zoom(deliveries, palette, chosen),
        "yAxis": {
            "type": "category",
            "data": [view.name_of(id) for id in rows],
            "inverse": True,
            **axis(palette),
            "axisLabel": {"color": palette.ink, "width": 120, "overflow": "truncate"},
            "splitLine": {"show": True, "lineStyle": {"color": palette.grid}},
        },
        "series": series,
    }


def _zoom(deliveries: Sequence[HubDelivery], palette: Palette, chosen: int | None) -> list[Options]:
    """Return a slider on the latest deliveries, or on those around the chosen one; none if all fit."""
    if len(deliveries) <= WINDOW:
        return []
    place = next((place for place, item in enumerate(deliveries) if item.number == chosen), len(deliveries) - 1)
    last = min(len(deliveries) - 1, max(place + WINDOW // 2, WINDOW - 1))
    shown = deliveries[max(0, last - WINDOW + 1) : last + 1]
    span = {"startValue": milliseconds(shown[0].time), "endValue": milliseconds(shown[-1].time)}
    style = {"textStyle": {"color": palette.ink}, "borderColor": palette.grid, "height": 20, "bottom": 8}
    # No zoom inside the chart: it would capture the page's scrolling.
    return [{"type": "slider", "filterMode": "none", **span, **style}]
