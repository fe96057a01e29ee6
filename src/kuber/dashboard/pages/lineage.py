"""Page of who taught whom over time, with the details of a delivery."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.elements.controls import Pager, SelectField
from kuber.dashboard.elements.delivery_table import delivery_row, delivery_table
from kuber.dashboard.elements.text import Timestamp, anchor, fact, facts, section, text_element
from kuber.dashboard.lineage_chart import lineage_chart
from kuber.dashboard.session import CHART_SECONDS, TabSession, parse_number, update_address
from kuber.views.delivery import HubDelivery
from kuber.views.formatting import natural, percent, points
from kuber.views.hub import HubView
from kuber.views.pagination import paginate

MAX_DELIVERIES = 500  # in the chart
MAX_ENTITIES = 40  # in the chart
PAGE_SIZE = 25  # deliveries
NOTE = (
    "Each line leads from a teacher's publication to a student's absorption of it. Select a delivery in the chart or "
    "the table to see its effect and its reason."
)


class LineagePage:
    """The page in one tab."""

    def __init__(self, session: TabSession, arguments: PageArguments) -> None:
        self.session = session
        self._arguments = arguments
        query = arguments.query_parameters
        self.entity = query.get("entity", "")
        self.kept = query.get("kept", "")
        self.chosen = parse_number(query.get("delivery", ""), 0) or None
        self.page = parse_number(query.get("page", ""), 1)
        self.chart: ui.echart | None = None
        self._drawn: int | None = None  # number of deliveries when the chart was drawn
        self._shown: tuple[int | None, HubDelivery | None] | None = None  # number and delivery
        self._zoom: tuple[object, ...] = ()  # choices for which the chart was zoomed

    def build(self) -> None:
        """Build everything, empty."""
        text_element("h1", "Lineage")
        text_element("p", NOTE).classes("k-soft")
        with Element("div").classes("k-tools"):
            self._entities = SelectField("Entity", {"": "all"}, self.entity, partial(self._change, "entity"))
            results = {"": "all", "kept": "kept", "undone": "not kept"}
            SelectField("Result", results, self.kept, partial(self._change, "kept"))
        self.detail = Element("section").classes("k-detail")
        self.detail.props('aria-label="Selected delivery" aria-live="polite"')
        self.place = Element("div").classes("k-chart")
        self._omitted = text_element("p", "").classes("k-soft")
        with section("Deliveries"):
            self._table = delivery_table("Deliveries")
            self._pager = Pager(partial(self._change, "page"))

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the current deliveries."""
        self._entities.set_options({"": "all"} | view.names)
        shown = paginate(self._found(view)[::-1], page=self.page, size=PAGE_SIZE)
        self._table.show([delivery_row(view, item, chosen=item.number == self.chosen) for item in shown.rows])
        self._pager.show(shown, count=f"{shown.total:,} deliveries")
        self._show_chosen(view)

    def draw_chart(self, *, force: bool = True) -> None:
        """Draw the chart; without `force`, only if there are new deliveries."""
        with self.session.context.feed.reading() as view:
            if force or self._drawn != view.delivered:
                self._redraw(view)

    def _redraw(self, view: HubView) -> None:
        excerpt = chart_excerpt(view, self._found(view), self.entity, self.chosen)
        options = lineage_chart(view, excerpt.deliveries, excerpt.rows, self.session.palette, self.chosen)
        zoom = (self.chosen, self.entity, self.kept, bool(options["dataZoom"]))
        self._omitted.set_text(excerpt.omitted)
        self._drawn = view.delivered
        self.place.style(f"height: {min(60, 12 + 2 * len(excerpt.rows))}rem")
        if self.chart is None:
            with self.place:
                self.chart = ui.echart(options, on_point_click=self._click)
        else:
            if zoom == self._zoom:  # the user may have moved the slider since
                del options["dataZoom"]
            self.chart.run_chart_method("setOption", options, {"replaceMerge": ["series", "yAxis"]})
            self.chart.run_chart_method("resize")
        self._zoom = zoom

    def _found(self, view: HubView) -> list[HubDelivery]:
        """Return the deliveries that match the filters, oldest first."""
        return [
            item
            for item in view.deliveries
            if (not self.entity or self.entity == item.student or self.entity in item.publishers)
            and (not self.kept or item.kept is (self.kept == "kept"))
        ]

    def _show_chosen(self, view: HubView) -> None:
        delivery = next((item for item in view.deliveries if item.number == self.chosen), None)
        caught_up = self.session.context.feed.caught_up
        if (self.chosen, delivery) == self._shown or (self.chosen is not None and delivery is None and not caught_up):
            return
        self._shown = (self.chosen, delivery)
        self.detail.clear()
        with self.detail:
            if delivery is not None:
                _detail(view, delivery)
            elif self.chosen is not None:
                text_element("p", f"The hub has no delivery {self.chosen}.").classes("k-empty")

    def _click(self, event: Any) -> None:
        value = event.data.get("value") if isinstance(event.data, dict) else None
        if isinstance(value, list) and len(value) == 3:
            self.chosen = int(value[2])
            self._refresh()
            ui.run_javascript(f"getHtmlElement({self.detail.id}).scrollIntoView({{block: 'nearest'}})")

    def _change(self, choice: str, value: Any) -> None:
        self.page = 1
        setattr(self, choice, value)
        self._refresh()

    def _refresh(self) -> None:
        query = {
            "entity": self.entity,
            "kept": self.kept,
            "delivery": "" if self.chosen is None else str(self.chosen),
            "page": str(self.page) if self.page > 1 else "",
        }
        update_address(self._arguments, query)
        with self.session.context.feed.reading() as view:
            self.draw(view, datetime.now(UTC))
            if self.chart is not None:
                self._redraw(view)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartExcerpt:
    """Deliveries and entities that the chart shows, and a sentence about those that it omits."""

    deliveries: list[HubDelivery]
    rows: list[str]  # entity ids, from the top
    omitted: str


def chart_excerpt(view: HubView, found: Sequence[HubDelivery], entity: str, chosen: int | None) -> ChartExcerpt:
    """Select the latest deliveries, or those around the chosen one, and the entities in most of them.

    The entity of the filter is always among them.
    """
    place = next((place for place, item in enumerate(found) if item.number == chosen), len(found) - 1)
    end = max(MAX_DELIVERIES, min(len(found), place + MAX_DELIVERIES // 2))
    shown = list(found[max(0, end - MAX_DELIVERIES) : end])
    counts = Counter(id for delivery in shown for id in {delivery.student, *delivery.publishers})
    busiest = sorted(counts, key=lambda id: (id != entity, -counts[id], natural(view.name_of(id))))[:MAX_ENTITIES]
    rows = sorted(busiest, key=lambda id: natural(view.name_of(id)))
    parts = []
    if len(found) > len(shown):
        parts.append(f"{len(shown)} of {len(found):,} deliveries")
    if len(counts) > len(rows):
        parts.append(f"the {len(rows)} busiest of {len(counts)} entities")
    omitted = f"The chart shows {' and '.join(parts)}; the table lists all." if parts else ""
    return ChartExcerpt(deliveries=shown, rows=rows, omitted=omitted)


def _detail(view: HubView, delivery: HubDelivery) -> None:
    """Add the facts of a delivery."""
    text_element("h2", f"Delivery {delivery.number}")
    with facts():
        with fact("Student"):
            anchor(view.name_of(delivery.student), f"/entity/{delivery.student}")
            text_element("span", f", in round {delivery.round}")
        with fact("Teachers"):
            for number, id in enumerate(delivery.teachers):
                record = view.records.get(id)
                text_element("span", ", " if number else "")
                anchor(f"{record.name}, round {record.round}" if record else id[-12:], f"/knowledge/{id}")
        with fact("Time"):
            Timestamp(delivery.time)
        with fact("Method"):
            text_element("span", delivery.method)
        with fact("Accuracy"):
            change = points(delivery.after - delivery.before)
            text_element(
                "span", f"{percent(delivery.before)} before, {percent(delivery.after)} after ({change} points)"
            )
        with fact("Result"):
            text_element("span", "kept" if delivery.kept else "not kept: the student restored its previous model")
        with fact("Reason", whole=True):
            text_element("span", delivery.reason or "The student reported no reason.")


async def page(session: TabSession, arguments: PageArguments) -> None:
    """Build the page and keep it up to date."""
    ui.page_title("Lineage · KUber")
    lineage = LineagePage(session, arguments)
    lineage.build()
    session.follow(lineage.draw)
    await session.ready()
    lineage.draw_chart()
    session.on_scheme.append(lineage.draw_chart)
    ui.timer(CHART_SECONDS, lambda: lineage.draw_chart(force=False), immediate=False)
