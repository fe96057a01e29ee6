"""The hub at a glance: who is there, how good each is, and what happened last."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any, Literal, get_args

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.charts import accuracy_chart, legend, line, marks, mean_line
from kuber.dashboard.elements.controls import Pager, SearchField, SelectField
from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, link, milliseconds, share, spark
from kuber.dashboard.elements.delivery_table import delivery_row, delivery_table
from kuber.dashboard.elements.text import section, text_element
from kuber.dashboard.session import PICTURE_SECONDS, TabSession, number, remember
from kuber.views import HubEntity, HubView, natural, percent, points, size
from kuber.views.curve_selection import MAX_NAMED, CurveSelection, select_curves
from kuber.views.pagination import paginate

SIZE = 50  # entities of one page
LATEST = 8  # deliveries
NOBODY = "Nobody has joined yet. Start one with `kuber entity 0`, or give `kuber.Entity` the address of this hub."
CURVE = 40  # accuracies of the small line in a row

Sort = Literal["entity", "round", "accuracy", "shared", "kept", "gained", "taught", "gave", "seen"]
SORTS: tuple[Sort, ...] = get_args(Sort)

COLUMNS = (
    Column(name="entity", label="Entity", sortable=True),
    Column(name="round", label="Round", kind="number", sortable=True),
    Column(name="accuracy", label="Accuracy", kind="share", sortable=True),
    Column(name="curve", label="Over time", kind="spark", wide=True),
    Column(name="shared", label="Shared", kind="number", sortable=True, wide=True),
    Column(name="kept", label="Kept", kind="number", sortable=True, wide=True),
    Column(name="gained", label="Gained", kind="number", sortable=True),
    Column(name="taught", label="Taught", kind="number", sortable=True, wide=True),
    Column(name="gave", label="Gave", kind="number", sortable=True, wide=True),
    Column(name="seen", label="Seen", kind="time", sortable=True),
)
_VALUES: dict[Sort, Callable[[HubEntity], Any]] = {
    "entity": lambda one: natural(one.name),
    "round": lambda one: one.round,
    "accuracy": lambda one: -1.0 if one.accuracy is None else one.accuracy,
    "shared": lambda one: one.published,
    "kept": lambda one: one.absorbed,
    "gained": lambda one: one.gained,
    "taught": lambda one: one.taught,
    "gave": lambda one: one.gave,
    "seen": lambda one: one.seen,
}


class Overview:
    """The page as one reader sees it."""

    def __init__(self, visit: TabSession, arguments: PageArguments) -> None:
        self.visit = visit
        self._arguments = arguments
        asked = arguments.query_parameters
        self.text = asked.get("q", "")
        self.highlighted = asked.get("entity", "")
        self.sort: Sort = next((one for one in SORTS if one == asked.get("sort")), "entity")
        self.descending = asked.get("down") == "1"
        self.number = number(asked.get("page", ""), 1)
        self.chart: ui.echart | None = None
        self._lines: dict[str, tuple[int, datetime]] = {}  # entity id -> how its line was when it was drawn
        self._crowd: CurveSelection | None = None

    def build(self) -> None:
        """Everything but the picture, which waits for the browser."""
        text_element("h1", "Overview")
        with Element("div").classes("k-totals"):
            self._totals = {
                name: _total(name) for name in ("Online", "Mean accuracy", "Records", "Deliveries kept", "Published")
            }
        with section("Accuracy over time"):
            text_element(
                "p", "On the common test set, or on each entity's own validation samples, as the entities told it."
            ).classes("k-soft")
            with Element("div").classes("k-tools"):
                self._out = SelectField("Draw out", {"": "nobody more"}, self.highlighted, self._draw_out)
            self.place = Element("div").classes("k-chart")
        with section("Entities"):
            with Element("div").classes("k-tools"):
                SearchField("Find an entity", self.text, self._search, hint="part of its name")
            self._table = DataTable("Entities", COLUMNS, nothing="Nobody has joined yet.", on_sort=self._sort_by)
            self._hint = text_element("p", NOBODY).classes("k-empty")
            self._pager = Pager(self._turn)
        with section("Latest deliveries"):
            self._latest = delivery_table("Latest deliveries")

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the hub as it is now."""
        entities = list(view.entities.values())
        told = [one.accuracy for one in entities if one.accuracy is not None]
        totals = {
            "Online": f"{sum(one.online(now) for one in entities)} of {len(entities)}",
            "Mean accuracy": percent(fmean(told)) if told else "–",
            "Records": f"{view.discoverable:,}",
            "Deliveries kept": f"{view.kept:,} of {view.delivered:,}",
            "Published": size(view.bytes),
        }
        for name, value in totals.items():
            self._totals[name].set_text(value)
        self._hint.set_visibility(not entities and self.visit.site.feed.caught_up)
        self._table.set_visibility(bool(entities))
        found = self._found(entities)
        shown = paginate(found, page=self.number, size=SIZE)
        rows = [entity_row(one, now) for one in shown.rows]
        self._table.show(rows, sort=self.sort, descending=self.descending)
        self._pager.show(shown, told=f"{shown.total} of {len(entities)} entities")
        latest = list(view.deliveries)[-LATEST:][::-1]
        self._latest.show([delivery_row(view, one) for one in latest])
        self._out.offer({"": "nobody more"} | view.names)
        self._out.set_visibility(len(told) > MAX_NAMED)

    def look(self) -> None:
        """Tell the picture what is new."""
        with self.visit.site.feed.reading() as view:
            self._redraw(view)

    def draw_chart(self) -> None:
        """Draw the picture anew."""
        self.place.clear()
        with self.visit.site.feed.reading() as view, self.place:
            self._crowd = select_curves(view, self.highlighted or None)
            options = accuracy_chart(view, self._crowd, self.visit.palette)
            self.chart = ui.echart(options, on_point_click=self._open)
            self._lines = _states(view)

    def _redraw(self, view: HubView) -> None:
        assert self.chart is not None
        states = _states(view)
        if states == self._lines:
            return
        shown = select_curves(view, self.highlighted or None)
        if self._crowd is None or shown.is_all is not self._crowd.is_all:
            self.draw_chart()
            return
        same = shown == self._crowd
        palette = self.visit.palette
        series = [
            line(one, shown, palette)
            for one in view.entities.values()
            if one.curve and (not same or states[one.id] != self._lines.get(one.id))
        ]
        if not shown.is_all:
            series.append(mean_line(view, palette))
        series += marks(view, shown, palette)
        self._crowd, self._lines = shown, states
        self.chart.run_chart_method("setOption", {"legend": legend(shown, palette), "series": series})

    def _found(self, entities: Sequence[HubEntity]) -> list[HubEntity]:
        wanted = self.text.casefold().split()
        kept = [one for one in entities if all(word in one.name.casefold() for word in wanted)]
        return sorted(kept, key=_VALUES[self.sort], reverse=self.descending)

    def _open(self, event: Any) -> None:
        if isinstance(event.data, dict) and "entity" in event.data:
            ui.navigate.to(f"/entity/{event.data['entity']}")

    def _search(self, text: str) -> None:
        self.text, self.number = text, 1
        self._again()

    def _turn(self, page: int) -> None:
        self.number = page
        self._again()

    def _sort_by(self, column: str) -> None:
        if column == self.sort:
            self.descending = not self.descending
        else:
            self.sort, self.descending = column, column not in ("entity",)  # type: ignore[assignment]
        self._again()

    def _draw_out(self, id: str) -> None:
        self.highlighted = id
        self._again()
        if self.chart is not None:
            self.draw_chart()

    def _again(self) -> None:
        query = {
            "q": self.text,
            "entity": self.highlighted,
            "sort": self.sort if self.sort != "entity" else "",
            "down": "1" if self.descending else "",
            "page": str(self.number) if self.number > 1 else "",
        }
        remember(self._arguments, query)
        with self.visit.site.feed.reading() as view:
            self.draw(view, datetime.now(UTC))


async def page(visit: TabSession, arguments: PageArguments) -> None:
    """The overview."""
    ui.page_title("Overview · KUber")
    overview = Overview(visit, arguments)
    overview.build()
    visit.follow(overview.draw)
    await visit.drawn()
    overview.draw_chart()
    visit.on_scheme.append(overview.draw_chart)
    ui.timer(PICTURE_SECONDS, overview.look, immediate=False)


def entity_row(one: HubEntity, now: datetime) -> TableRow:
    """An entity as a row of the table."""
    online = one.online(now)
    tone, told = ("on", "online: ") if online else ("off", "away: ")
    curve = [accuracy for _, _, accuracy in one.curve][-CURVE:]
    return TableRow(
        key=one.id,
        muted=not online,
        cells=(
            link(one.name, f"/entity/{one.id}", tone=tone, told=told),
            str(one.round),
            share(one.accuracy),
            spark(curve),
            str(one.published),
            f"{one.absorbed} of {one.absorbed + one.declined}",
            points(one.gained) if one.absorbed else None,
            str(one.taught),
            points(one.gave) if one.taught else None,
            milliseconds(one.seen),
        ),
    )


def _total(name: str) -> Any:
    with Element("div"):
        value = text_element("strong", "–")
        text_element("span", name)
    return value


def _states(view: HubView) -> dict[str, tuple[int, datetime]]:
    return {one.id: (len(one.curve) + len(one.marks), one.seen) for one in view.entities.values() if one.curve}
