"""Overview page: totals, accuracies, entities and latest deliveries."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
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
from kuber.dashboard.hub_reader import SUSPICION_SECONDS
from kuber.dashboard.session import CHART_SECONDS, TabSession, parse_number, update_address
from kuber.views.curve_selection import MAX_NAMED, CurveSelection, select_curves
from kuber.views.formatting import natural, percent, points, size
from kuber.views.hub import HubEntity, HubView
from kuber.views.pagination import paginate
from kuber.views.suspicion import PublisherSuspicion

PAGE_SIZE = 50  # entities
LATEST = 8  # deliveries
EMPTY_HUB = "No entity has joined yet. Start one with `kuber entity 0`, or give `kuber.Entity` the URL of this hub."
SPARK_POINTS = 40

NO_HIGHLIGHT = {"": "only the best and the worst"}

Sort = Literal["entity", "round", "accuracy", "shared", "kept", "gained", "taught", "gave", "seen"]
SORTS: tuple[Sort, ...] = get_args(Sort)

COLUMNS = (
    Column(name="entity", label="Entity", sortable=True),
    Column(name="round", label="Round", kind="number", sortable=True),
    Column(name="accuracy", label="Accuracy", kind="share", sortable=True),
    Column(name="curve", label="Over time", kind="spark", wide=True),
    Column(name="shared", label="Published", kind="number", sortable=True, wide=True),
    Column(name="kept", label="Absorbed", kind="number", sortable=True, wide=True),
    Column(name="gained", label="Gained", kind="number", sortable=True),
    Column(name="taught", label="Taught", kind="number", sortable=True, wide=True),
    Column(name="gave", label="Contributed", kind="number", sortable=True, wide=True),
    Column(name="seen", label="Last seen", kind="time", sortable=True),
)
SUSPICION_COLUMNS = (
    Column(name="publisher", label="Publisher"),
    Column(name="facts", label="Records"),
    Column(name="newest", label="Newest of them"),
)
SUSPICIOUS = (
    "Entities evaluate each model before they use it, and attest the result. This is a hint and no proof: those who "
    "contradict may lie. `kuber hub suspicious` lists each record."
)
_VALUES: dict[Sort, Callable[[HubEntity], Any]] = {
    "entity": lambda entity: natural(entity.name),
    "round": lambda entity: entity.round,
    "accuracy": lambda entity: -1.0 if entity.accuracy is None else entity.accuracy,
    "shared": lambda entity: entity.published,
    "kept": lambda entity: entity.absorbed,
    "gained": lambda entity: entity.gained,
    "taught": lambda entity: entity.taught,
    "gave": lambda entity: entity.gave,
    "seen": lambda entity: entity.seen,
}


class OverviewPage:
    """The page in one tab."""

    def __init__(self, session: TabSession, arguments: PageArguments) -> None:
        self.session = session
        self._arguments = arguments
        query = arguments.query_parameters
        self.text = query.get("q", "")
        self.highlighted = query.get("entity", "")
        self.sort: Sort = next((column for column in SORTS if column == query.get("sort")), "entity")
        self.descending = query.get("down") == "1"
        self.number = parse_number(query.get("page", ""), 1)
        self.chart: ui.echart | None = None
        self._lines: dict[str, tuple[int, datetime]] = {}  # entity id -> state of its drawn line
        self._selection: CurveSelection | None = None

    def build(self) -> None:
        """Build everything but the chart, which waits for the browser."""
        text_element("h1", "Overview")
        with Element("div").classes("k-totals"):
            self._totals = {
                name: _total(name)
                for name in ("Online", "Mean accuracy", "Records", "Deliveries kept", "Data published")
            }
        with section("Accuracy over time"):
            note = "On the common test set, or on each entity's own validation samples, as the entities reported it."
            text_element("p", note).classes("k-soft")
            with Element("div").classes("k-tools"):
                self._highlight = SelectField("Highlight", NO_HIGHLIGHT, self.highlighted, self._choose_highlight)
            self.place = Element("div").classes("k-chart")
        with section("Entities"):
            with Element("div").classes("k-tools"):
                SearchField("Search", self.text, partial(self._change, "text"), hint="entity name")
            self._table = DataTable("Entities", COLUMNS, empty="No entity matches.", on_sort=self._sort_by)
            self._hint = text_element("p", EMPTY_HUB).classes("k-empty")
            self._pager = Pager(partial(self._change, "number"))
        with section("Latest deliveries"):
            self._latest = delivery_table("Latest deliveries")
        self._suspicious = Element("div")
        with self._suspicious, section("Contradicted claims and copies"):
            text_element("p", SUSPICIOUS).classes("k-soft")
            self._suspicions = DataTable("Contradicted claims and copies", SUSPICION_COLUMNS)
        self._suspicious.set_visibility(False)

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the current state of the hub."""
        entities = list(view.entities.values())
        accuracies = [entity.accuracy for entity in entities if entity.accuracy is not None]
        totals = {
            "Online": f"{sum(entity.online(now) for entity in entities)} of {len(entities)}",
            "Mean accuracy": percent(fmean(accuracies)) if accuracies else "–",
            "Records": f"{view.discoverable:,}",
            "Deliveries kept": f"{view.kept:,} of {view.delivered:,}",
            "Data published": size(view.bytes),
        }
        for name, value in totals.items():
            self._totals[name].set_text(value)
        self._hint.set_visibility(not entities and self.session.context.feed.caught_up)
        self._table.set_visibility(bool(entities))
        found = self._found(entities)
        shown = paginate(found, page=self.number, size=PAGE_SIZE)
        rows = [entity_row(entity, now) for entity in shown.rows]
        self._table.show(rows, sort=self.sort, descending=self.descending)
        self._pager.show(shown, count=f"{shown.total} of {len(entities)} entities")
        latest = list(view.deliveries)[-LATEST:][::-1]
        self._latest.show([delivery_row(view, delivery) for delivery in latest])
        self._highlight.set_options(NO_HIGHLIGHT | view.names)
        self._highlight.set_visibility(len(accuracies) > MAX_NAMED)

    async def show_suspicions(self) -> None:
        """Read whose claims others contradict, and show them if there are any."""
        found = await asyncio.to_thread(self.session.context.reader.suspicions)
        self._suspicions.show([suspicion_row(publisher) for publisher in found[:PAGE_SIZE]])
        self._suspicious.set_visibility(bool(found))

    def draw_chart(self) -> None:
        """Draw the chart."""
        self.place.clear()
        with self.session.context.feed.reading() as view, self.place:
            self._selection = select_curves(view, self.highlighted or None)
            options = accuracy_chart(view, self._selection, self.session.palette)
            self.chart = ui.echart(options, on_point_click=self._open)
            self._lines = _states(view)

    def update_chart(self) -> None:
        """Send the lines that have changed to the chart."""
        assert self.chart is not None
        palette = self.session.palette
        with self.session.context.feed.reading() as view:
            states = _states(view)
            if states == self._lines:
                return
            shown = select_curves(view, self.highlighted or None)
            if self._selection is None or shown.is_all is not self._selection.is_all:
                self.draw_chart()
                return
            same = shown == self._selection
            series = [
                line(entity, shown, palette)
                for entity in view.entities.values()
                if entity.curve and (not same or states[entity.id] != self._lines.get(entity.id))
            ]
            if not shown.is_all:
                series.append(mean_line(view, palette))
            series += marks(view, shown, palette)
        self._selection, self._lines = shown, states
        self.chart.run_chart_method("setOption", {"legend": legend(shown, palette), "series": series})

    def _found(self, entities: Sequence[HubEntity]) -> list[HubEntity]:
        words = self.text.casefold().split()
        matching = [entity for entity in entities if all(word in entity.name.casefold() for word in words)]
        return sorted(matching, key=_VALUES[self.sort], reverse=self.descending)

    def _open(self, event: Any) -> None:
        if isinstance(event.data, dict) and "entity" in event.data:
            ui.navigate.to(f"/entity/{event.data['entity']}")

    def _change(self, choice: str, value: Any) -> None:
        self.number = 1
        setattr(self, choice, value)
        self._refresh()

    def _sort_by(self, column: str) -> None:
        if column == self.sort:
            self.descending = not self.descending
        else:
            self.sort, self.descending = column, column not in ("entity",)  # type: ignore[assignment]
        self._refresh()

    def _choose_highlight(self, id: str) -> None:
        self.highlighted = id
        self._refresh()
        if self.chart is not None:
            self.draw_chart()

    def _refresh(self) -> None:
        query = {
            "q": self.text,
            "entity": self.highlighted,
            "sort": self.sort if self.sort != "entity" else "",
            "down": "1" if self.descending else "",
            "page": str(self.number) if self.number > 1 else "",
        }
        update_address(self._arguments, query)
        with self.session.context.feed.reading() as view:
            self.draw(view, datetime.now(UTC))


async def page(session: TabSession, arguments: PageArguments) -> None:
    """Build the page and keep it up to date."""
    ui.page_title("Overview · KUber")
    overview = OverviewPage(session, arguments)
    overview.build()
    session.follow(overview.draw)
    await session.ready()
    overview.draw_chart()
    session.on_scheme.append(overview.draw_chart)
    ui.timer(CHART_SECONDS, overview.update_chart, immediate=False)
    ui.timer(SUSPICION_SECONDS, overview.show_suspicions)


def entity_row(entity: HubEntity, now: datetime) -> TableRow:
    """Return the row of an entity."""
    online = entity.online(now)
    tone, label = ("on", "online: ") if online else ("off", "offline: ")
    curve = [accuracy for _, _, accuracy in entity.curve][-SPARK_POINTS:]
    return TableRow(
        key=entity.id,
        muted=not online,
        cells=(
            link(entity.name, f"/entity/{entity.id}", tone=tone, label=label),
            str(entity.round),
            share(entity.accuracy),
            spark(curve),
            str(entity.published),
            f"{entity.absorbed} of {entity.absorbed + entity.declined}",
            points(entity.gained) if entity.absorbed else None,
            str(entity.taught),
            points(entity.gave) if entity.taught else None,
            milliseconds(entity.seen),
        ),
    )


def suspicion_row(publisher: PublisherSuspicion) -> TableRow:
    """Return the row of a publisher whose claims others contradict, or who publishes copies."""
    newest = publisher.records[0].knowledge
    return TableRow(
        key=publisher.entity,
        cells=(
            link(publisher.publisher, f"/entity/{publisher.entity}"),
            publisher.facts,
            link(newest[-12:], f"/knowledge/{newest}"),
        ),
    )


def _total(name: str) -> Any:
    with Element("div"):
        value = text_element("strong", "–")
        text_element("span", name)
    return value


def _states(view: HubView) -> dict[str, tuple[int, datetime]]:
    entities = [entity for entity in view.entities.values() if entity.curve]
    return {entity.id: (len(entity.curve) + len(entity.marks), entity.seen) for entity in entities}
