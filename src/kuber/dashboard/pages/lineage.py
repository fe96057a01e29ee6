"""Who taught whom, over time; one delivery in detail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.elements.controls import Pager, SelectField
from kuber.dashboard.elements.delivery_table import delivery_row, delivery_table
from kuber.dashboard.elements.text import Timestamp, anchor, fact, facts, section, text_element
from kuber.dashboard.lineage_chart import lineage_chart
from kuber.dashboard.session import PICTURE_SECONDS, TabSession, number, remember
from kuber.views import HubDelivery, HubView, natural, percent, points
from kuber.views.pagination import paginate

DRAWN = 500  # latest deliveries in the picture
ROWS = 40  # most entities in the picture
SIZE = 25  # deliveries of one page of the table
READ = (
    "A line leads from the moment a teacher published to the moment a student absorbed. Choose a delivery, in the "
    "picture or in the table, to see what it did and why it was made."
)


class Lineage:
    """The page as one reader sees it."""

    def __init__(self, visit: TabSession, arguments: PageArguments) -> None:
        self.visit = visit
        self._arguments = arguments
        asked = arguments.query_parameters
        self.entity = asked.get("entity", "")
        self.kept = asked.get("kept", "")
        self.chosen = number(asked.get("delivery", ""), 0) or None
        self.page = number(asked.get("page", ""), 1)
        self.chart: ui.echart | None = None
        self._told: int | None = None  # deliveries of the hub when the picture was drawn
        self._shown: tuple[int | None, HubDelivery | None] | None = None  # what was chosen, and what it is
        self._window: tuple[object, ...] = ()  # what the picture's window was set for

    def build(self) -> None:
        """The controls, the places of picture and detail, and the empty table."""
        text_element("h1", "Lineage")
        text_element("p", READ).classes("k-soft")
        with Element("div").classes("k-tools"):
            self._entities = SelectField("Entity", {"": "all"}, self.entity, self._of)
            kept = {"": "all", "kept": "kept", "undone": "undone"}
            SelectField("Result", kept, self.kept, self._only)
        self.detail = (
            Element("section").classes("k-detail").props('aria-label="The chosen delivery" aria-live="polite"')
        )
        self.place = Element("div").classes("k-chart")
        self._left_out = text_element("p", "").classes("k-soft")
        with section("Deliveries"):
            self._table = delivery_table("Deliveries")
            self._pager = Pager(self._turn)

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the deliveries as they are now."""
        self._entities.offer({"": "all"} | view.names)
        shown = paginate(self._found(view)[::-1], page=self.page, size=SIZE)
        self._table.show([delivery_row(view, one, chosen=one.number == self.chosen) for one in shown.rows])
        self._pager.show(shown, told=f"{shown.total:,} deliveries")
        self._show_chosen(view)

    def look(self) -> None:
        """Draw the picture anew when there are new deliveries."""
        with self.visit.site.feed.reading() as view:
            if self._told != view.delivered:
                self._redraw(view)

    def draw_chart(self) -> None:
        """Draw the picture anew."""
        with self.visit.site.feed.reading() as view:
            self._redraw(view)

    def _redraw(self, view: HubView) -> None:
        drawn = picture(view, self._found(view), self.entity, self.chosen)
        options = lineage_chart(view, drawn.deliveries, drawn.rows, self.visit.palette, self.chosen)
        window = (self.chosen, self.entity, self.kept, bool(options["dataZoom"]))
        self._left_out.set_text(drawn.left_out)
        self._told = view.delivered
        self.place.style(f"height: {min(60, 12 + 2 * len(drawn.rows))}rem")
        if self.chart is None:
            with self.place:
                self.chart = ui.echart(options, on_point_click=self._click)
        else:
            if window == self._window:  # the reader may have moved it since
                del options["dataZoom"]
            self.chart.run_chart_method("setOption", options, {"replaceMerge": ["series", "yAxis"]})
            self.chart.run_chart_method("resize")
        self._window = window

    def _found(self, view: HubView) -> list[HubDelivery]:
        """The deliveries that are asked for, first come first."""
        return [
            one
            for one in view.deliveries
            if (not self.entity or self.entity == one.student or self.entity in one.publishers)
            and (not self.kept or one.kept is (self.kept == "kept"))
        ]

    def _show_chosen(self, view: HubView) -> None:
        one = next((one for one in view.deliveries if one.number == self.chosen), None)
        caught_up = self.visit.site.feed.caught_up
        if (self.chosen, one) == self._shown or (self.chosen is not None and one is None and not caught_up):
            return
        self._shown = (self.chosen, one)
        self.detail.clear()
        with self.detail:
            if one is not None:
                _detail(view, one)
            elif self.chosen is not None:
                text_element("p", f"The hub tells of no delivery {self.chosen}.").classes("k-empty")

    def _click(self, event: Any) -> None:
        value = event.data.get("value") if isinstance(event.data, dict) else None
        if isinstance(value, list) and len(value) == 3:
            self.chosen = int(value[2])
            self._again()
            ui.run_javascript(f"getHtmlElement({self.detail.id}).scrollIntoView({{block: 'nearest'}})")

    def _of(self, id: str) -> None:
        self.entity, self.page = id, 1
        self._again()

    def _only(self, kept: str) -> None:
        self.kept, self.page = kept, 1
        self._again()

    def _turn(self, page: int) -> None:
        self.page = page
        self._again()

    def _again(self) -> None:
        query = {
            "entity": self.entity,
            "kept": self.kept,
            "delivery": "" if self.chosen is None else str(self.chosen),
            "page": str(self.page) if self.page > 1 else "",
        }
        remember(self._arguments, query)
        with self.visit.site.feed.reading() as view:
            self.draw(view, datetime.now(UTC))
            if self.chart is not None:
                self._redraw(view)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What fits into the picture, and a sentence about what does not."""

    deliveries: list[HubDelivery]
    rows: list[str]  # entity ids, from the top
    left_out: str


def picture(view: HubView, found: Sequence[HubDelivery], entity: str, chosen: int | None) -> Picture:
    """The latest deliveries, or those around the chosen one, and the entities that took part in most of them.

    The entity that is looked at is always there.
    """
    place = next((place for place, one in enumerate(found) if one.number == chosen), len(found) - 1)
    end = max(DRAWN, min(len(found), place + DRAWN // 2))
    shown = list(found[max(0, end - DRAWN) : end])
    times: dict[str, int] = {}
    for one in shown:
        for id in {one.student, *one.publishers}:
            times[id] = times.get(id, 0) + 1
    busiest = sorted(times, key=lambda id: (id != entity, -times[id], natural(view.name_of(id))))[:ROWS]
    rows = sorted(busiest, key=lambda id: natural(view.name_of(id)))
    missing = []
    if len(found) > len(shown):
        missing.append(f"{len(shown)} of {len(found):,} deliveries")
    if len(times) > len(rows):
        missing.append(f"the {len(rows)} busiest of {len(times)} entities")
    return Picture(
        deliveries=shown,
        rows=rows,
        left_out=f"The picture shows {' and '.join(missing)}; the table has all." if missing else "",
    )


def _detail(view: HubView, one: HubDelivery) -> None:
    """What one delivery did, and why it was made."""
    text_element("h2", f"Delivery {one.number}")
    with facts():
        with fact("Student"):
            anchor(view.name_of(one.student), f"/entity/{one.student}")
            text_element("span", f", in its round {one.round}")
        with fact("Teachers"):
            for number, id in enumerate(one.teachers):
                record = view.records.get(id)
                text_element("span", ", " if number else "")
                anchor(f"{record.name}, round {record.round}" if record else id[-12:], f"/knowledge/{id}")
        with fact("When"):
            Timestamp(one.time)
        with fact("Method"):
            text_element("span", one.method)
        with fact("Accuracy"):
            change = points(one.after - one.before)
            text_element("span", f"{percent(one.before)} before, {percent(one.after)} after ({change} points)")
        with fact("Result"):
            text_element("span", "kept" if one.kept else "undone: the student went back to its model of before")
        with fact("Why these", whole=True):
            text_element("span", one.reason or "The student did not tell why it chose them.")


async def page(visit: TabSession, arguments: PageArguments) -> None:
    """The picture of who taught whom."""
    ui.page_title("Lineage · KUber")
    lineage = Lineage(visit, arguments)
    lineage.build()
    visit.follow(lineage.draw)
    await visit.drawn()
    lineage.draw_chart()
    visit.on_scheme.append(lineage.draw_chart)
    ui.timer(PICTURE_SECONDS, lineage.look, immediate=False)
