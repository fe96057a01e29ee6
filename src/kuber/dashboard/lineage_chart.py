"""The picture of who taught whom, as options for ECharts."""

from collections.abc import Sequence

from kuber.dashboard.charts import MEANINGS, SIGNS, Options, axis, base, names, sign_style
from kuber.dashboard.elements.data_table import milliseconds
from kuber.views import HubDelivery, HubView
from kuber.views.palette import Palette

AT_ONCE = 80  # deliveries that are seen before the reader widens the window


def lineage_chart(
    view: HubView, deliveries: Sequence[HubDelivery], rows: Sequence[str], palette: Palette, chosen: int | None
) -> Options:
    """Who taught whom over time: a line from each teacher's publication to the absorption; rows are entity ids.

    The points of series `kept` and `undone` carry the number of their delivery as third value.
    """
    place = {id: number for number, id in enumerate(rows)}
    published = {id: (milliseconds(one.time), one.publisher) for id, one in view.records.items()}
    series: list[Options] = []
    for kind, kept, colour in (("undone", False, palette.pale), ("kept", True, palette.colours[0])):
        mine = [one for one in deliveries if one.kept is kept and one.student in place]
        lines = [
            {
                "coords": [[published[id][0], place[published[id][1]]], [milliseconds(one.time), place[one.student]]],
                **({"lineStyle": {"width": 3, "opacity": 1}} if one.number == chosen else {}),
            }
            for one in mine
            for id in one.teachers
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
                "name": MEANINGS[kind],
                "z": 4,
                "symbol": SIGNS[kind],
                "symbolSize": 9 if thin else 12,
                "cursor": "pointer",
                "itemStyle": sign_style(kind, colour, palette),
                "data": [
                    {
                        "value": [milliseconds(one.time), place[one.student], one.number],
                        **({"symbolSize": 20} if one.number == chosen else {}),
                    }
                    for one in mine
                ],
            }
        )
    series.append(
        {
            "type": "scatter",
            "name": MEANINGS["published"],
            "silent": True,
            "z": 3,
            "symbolSize": 4,
            "itemStyle": {"color": palette.ink},
            "data": [
                [milliseconds(view.records[id].time), place[view.records[id].publisher]]
                for id in dict.fromkeys(id for one in deliveries for id in one.teachers)
                if id in view.records and view.records[id].publisher in place
            ],
        }
    )
    return {
        **base(palette, "Who taught whom: a line from each publication to the absorption that it took part in."),
        "tooltip": {"show": False},
        "legend": names(palette, list(MEANINGS.values())),
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 56, "containLabel": True},
        "xAxis": {"type": "time", **axis(palette)},
        "dataZoom": _window(deliveries, palette, chosen),
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


def _window(deliveries: Sequence[HubDelivery], palette: Palette, chosen: int | None) -> list[Options]:
    """What the picture begins with of all it holds: the latest deliveries, or those around the chosen one."""
    if len(deliveries) <= AT_ONCE:
        return []
    place = next((place for place, one in enumerate(deliveries) if one.number == chosen), len(deliveries) - 1)
    last = min(len(deliveries) - 1, max(place + AT_ONCE // 2, AT_ONCE - 1))
    shown = deliveries[max(0, last - AT_ONCE + 1) : last + 1]
    span = {"startValue": milliseconds(shown[0].time), "endValue": milliseconds(shown[-1].time)}
    told = {"textStyle": {"color": palette.ink}, "borderColor": palette.grid, "height": 20, "bottom": 8}
    # Nothing inside the picture: that would take the wheel and the finger from the page.
    return [{"type": "slider", "filterMode": "none", **span, **told}]
