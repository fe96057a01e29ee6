"""One entity: how good it became, what it holds, what it gave and took."""

import asyncio
from contextlib import suppress
from datetime import datetime

from nicegui import ui
from nicegui.element import Element

from kuber.dashboard.charts import accuracy_chart, bars_chart
from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, link
from kuber.dashboard.elements.delivery_table import delivery_row, delivery_table
from kuber.dashboard.elements.record_table import record_columns, record_row
from kuber.dashboard.elements.text import Timestamp, anchor, fact, facts, section, text_element
from kuber.dashboard.session import LOOK_SECONDS, PICTURE_SECONDS, TabSession
from kuber.domain.evaluation import recalls_of
from kuber.domain.knowledge import Knowledge
from kuber.errors import KUberError
from kuber.views import HubEntity, HubView, ago, percent, points
from kuber.views.curve_selection import CurveSelection
from kuber.views.exchange import partners
from kuber.views.record_table import RecordFilter, filter_records

SIZE = 10  # deliveries and records
SUMS = "Sums over kept absorptions, in percentage points: accuracy after, less before, shared among the teachers."

PARTNERS = (
    Column(name="name", label="Entity"),
    Column(name="took", label="Taught us", kind="number"),
    Column(name="gained", label="Gained", kind="number"),
    Column(name="gave", label="Learnt from us", kind="number"),
    Column(name="helped", label="Gave", kind="number"),
    Column(name="undone", label="Undone", kind="number", wide=True),
)


class EntityPage:
    """The page as one reader sees it."""

    def __init__(self, visit: TabSession, id: str) -> None:
        self.visit = visit
        self.id = id
        self.newest: Knowledge | None = None  # of its records, as far as the hub was asked
        self._drawn: tuple[object, ...] = ()  # what the pictures were drawn of

    def build(self, entity: HubEntity) -> None:
        """The places of everything."""
        text_element("h1", f"Entity {entity.name}")
        with facts():
            self._facts = {}
            for name in (
                "State",
                "Round",
                "Accuracy",
                "Gained from others",
                "Gave to others",
                "Net benefit",
                "Published",
            ):
                with fact(name):
                    self._facts[name] = text_element("span", "")
            with fact("Joined"):
                Timestamp(entity.joined)
        with section("Accuracy over time"):
            self._curve = Element("div").classes("k-chart")
        with Element("div").classes("k-columns"):
            with section("Accuracy on each class"):
                self._classes = Element("div").classes("k-chart short")
                self._classes_told = text_element("p", "").classes("k-soft")
            with section("What it holds"):
                self._holds = Element("div").classes("k-chart short")
                self._holds_told = text_element("p", "").classes("k-soft")
        with section("What it gave and took"):
            text_element("p", SUMS).classes("k-soft")
            self._partners = DataTable("What it gave and took", PARTNERS, nothing="It exchanged nothing yet.")
        with section("Latest deliveries"):
            self._deliveries = delivery_table("Latest deliveries of this entity")
            anchor("All its deliveries", f"/lineage?entity={self.id}")
        with section("Latest records"):
            self._records = DataTable(
                "Latest records of this entity", record_columns(sortable=False), nothing="It published nothing yet."
            )
            anchor("All its records", f"/knowledge?entity={self.id}&show=all")

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the entity as it is now."""
        one = view.entities[self.id]
        silent = ago((now - one.seen).total_seconds())
        seen = "just now" if silent == "now" else f"{silent} ago"
        self._tell("State", f"{'online' if one.online(now) else 'away'}, last seen {seen}")
        self._tell("Round", str(one.round))
        self._tell("Accuracy", "not told" if one.accuracy is None else percent(one.accuracy))
        tried = one.absorbed + one.declined
        self._tell("Gained from others", f"{points(one.gained)} points in {one.absorbed} kept of {tried} absorptions")
        self._tell("Gave to others", f"{points(one.gave)} points in {one.taught} of their absorptions")
        net = one.gained - one.gave
        balance = "took more than it gave" if net > 0 else "gave more than it took" if net < 0 else "even"
        self._tell("Net benefit", f"{points(net)} points: {balance}")
        self._tell("Published", f"{one.published} records")
        self._partners.show(
            [
                TableRow(
                    key=other.id,
                    cells=(
                        link(other.name, f"/entity/{other.id}"),
                        str(other.took),
                        points(other.gained) if other.took else None,
                        str(other.gave),
                        points(other.helped) if other.gave else None,
                        str(other.undone),
                    ),
                )
                for other in partners(view, self.id)
            ]
        )
        mine = [one for one in view.deliveries if self.id == one.student or self.id in one.publishers]
        self._deliveries.show([delivery_row(view, one) for one in mine[::-1][:SIZE]])
        records = filter_records(view.records.values(), RecordFilter(publisher=self.id, state="all", size=SIZE))
        self._records.show([record_row(one) for one in records.rows])

    def _tell(self, name: str, text: str) -> None:
        self._facts[name].set_text(text)

    async def look(self) -> None:
        """Ask for the newest record when there is a newer one, and draw what is new."""
        with self.visit.site.feed.reading() as view:
            newest = view.entities[self.id].newest
        if newest is not None and (self.newest is None or self.newest.id != newest):
            # The frame says that the hub is away; what the events tell is drawn all the same
            with suppress(KUberError):
                self.newest = await asyncio.to_thread(self.visit.site.source.knowledge, newest)
        self.draw_charts()

    def draw_charts(self, *, anew: bool = False) -> None:
        """Draw the pictures, where what they show has changed."""
        with self.visit.site.feed.reading() as view:
            one = view.entities[self.id]
            state = (len(one.curve), len(one.marks), one.seen, self.newest and self.newest.id)
            if state == self._drawn and not anew:
                return
            self._drawn = state
            alone = CurveSelection(highlighted={one.id: one.name}, is_all=True)
            told = accuracy_chart(_only(one), alone, self.visit.palette)
            correct, total = one.correct, one.total
        _redraw(self._curve, told if one.curve else None)
        self._draw_classes(correct, total)
        self._draw_holdings()

    def _draw_classes(self, correct: tuple[int, ...], total: tuple[int, ...]) -> None:
        labels = self._labels(len(total))
        bars = {"now": recalls_of(correct, total)}
        told = "Accuracy on each class, as it told last."
        options = bars_chart(labels, bars, self.visit.palette, told=told, percent=True) if total else None
        _redraw(self._classes, options)
        self._classes_told.set_text("" if total else "It has not told.")

    def _draw_holdings(self) -> None:
        counts = self.newest.class_counts if self.newest else None
        options = None
        if counts is not None:
            told = "Training samples of each class."
            bars: dict[str, list[float | None]] = {"training samples": [float(count) for count in counts]}
            options = bars_chart(self._labels(len(counts)), bars, self.visit.palette, told=told, percent=False)
        _redraw(self._holds, options)
        self._holds_told.set_text(
            "" if counts is not None else "It has chosen not to tell how many samples of each class it has."
        )

    def _labels(self, count: int) -> list[str]:
        if self.newest is not None and self.newest.task.classes == count:
            return list(self.newest.task.labels)
        return [f"class {number}" for number in range(count)]


def _only(one: HubEntity) -> HubView:
    return HubView(entities={one.id: one})


def _redraw(place: Element, options: dict[str, object] | None) -> None:
    """Show these options in the place's picture, which is made when there is none; nothing without options."""
    place.set_visibility(options is not None)
    if options is None:
        return
    charts = [child for child in place.default_slot.children if isinstance(child, ui.echart)]
    if charts:
        charts[0].run_chart_method("setOption", options, {"replaceMerge": ["series", "xAxis"]})
    else:
        with place:
            ui.echart(options)


async def page(visit: TabSession, id: str) -> None:
    """One entity."""
    feed = visit.site.feed
    if id not in feed.view.entities and not feed.caught_up:
        with Element("div") as waiting:
            text_element("h1", "Entity")
            text_element("p", "Reading what happened so far …").classes("k-empty").props("role=status")
        await ui.context.client.connected()
        while id not in feed.view.entities and not feed.caught_up:
            await asyncio.sleep(LOOK_SECONDS)
        waiting.delete()
    with feed.reading() as view:
        known = view.entities.get(id)
    if known is None:
        ui.page_title("Nobody · KUber")
        text_element("h1", "Nobody of this id")
        text_element("p", f"The hub tells of no entity {id[:100]}.").classes("k-fault").props("role=alert")
        anchor("Everybody", "/")
        return
    ui.page_title(f"{known.name} · KUber")
    entity = EntityPage(visit, id)
    entity.build(known)
    visit.follow(entity.draw)
    await visit.drawn()
    await entity.look()
    visit.on_scheme.append(lambda: entity.draw_charts(anew=True))
    ui.timer(PICTURE_SECONDS, entity.look, immediate=False)
