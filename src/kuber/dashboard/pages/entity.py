"""Page of an entity: accuracies, training data, exchange with other entities."""

import asyncio
from contextlib import suppress
from datetime import datetime

from nicegui import ui
from nicegui.element import Element

from kuber.dashboard.charts import accuracy_chart, bars_chart
from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, link
from kuber.dashboard.elements.delivery_table import delivery_row, delivery_table
from kuber.dashboard.elements.joining_table import JoiningTable
from kuber.dashboard.elements.record_table import record_columns, record_row
from kuber.dashboard.elements.text import Timestamp, anchor, fact, facts, section, text_element
from kuber.dashboard.session import CHART_SECONDS, POLL_SECONDS, TabSession
from kuber.domain.evaluation import recalls_of
from kuber.domain.knowledge import Knowledge
from kuber.domain.prior import accuracy_on
from kuber.errors import KUberError
from kuber.views.curve_selection import CurveSelection
from kuber.views.deployed_models import describe_deployed
from kuber.views.entity_logs import LoggedEntity
from kuber.views.exchange import partners
from kuber.views.formatting import ago, percent, points
from kuber.views.hub import HubEntity, HubView
from kuber.views.record_table import RecordFilter, filter_records

LATEST = 10  # deliveries and records
JOINING = (
    "Not compared yet: with kuber.Entity(control=True), fit trains a copy alone; entity.report(alone=model) compares "
    "with a model that you trained alone."
)
SUMS = "Sums over kept absorptions, in percentage points: accuracy after minus before, divided among the teachers."

FACTS = (
    "State",
    "Round",
    "General accuracy",
    "Own accuracy",
    "Gained from others",
    "Contributed to others",
    "Net benefit",
    "Published",
)
PARTNERS = (
    Column(name="name", label="Entity"),
    Column(name="took", label="Taught this entity", kind="number"),
    Column(name="gained", label="Gained", kind="number"),
    Column(name="gave", label="Learned from it", kind="number"),
    Column(name="helped", label="Contributed", kind="number"),
    Column(name="undone", label="Not kept", kind="number", wide=True),
)


class EntityPage:
    """The page in one tab."""

    def __init__(self, session: TabSession, id: str) -> None:
        self.session = session
        self.id = id
        self.newest: Knowledge | None = None  # its latest record, once read
        self._drawn: tuple[object, ...] = ()  # state that the charts show

    def build(self, entity: HubEntity) -> None:
        """Build everything, empty."""
        text_element("h1", f"Entity {entity.name}")
        with facts():
            self._facts = {}
            for name in FACTS:
                with fact(name):
                    self._facts[name] = text_element("span", "")
            with fact("Joined"):
                Timestamp(entity.joined)
            with fact("Deployed model") as value:
                self._deployed = text_element("span", "")
            self._deployed_fact = value.parent_slot.parent if value.parent_slot else value
        with section("Alone and with KUber") as self._joining:
            self._joining_table = JoiningTable()
            self._joining_hint = text_element("p", JOINING).classes("k-soft")
        self._show_log(None)
        with section("Accuracy over time"):
            self._curve = Element("div").classes("k-chart")
            self._curve_hint = text_element("p", "").classes("k-soft")
        with Element("div").classes("k-columns"):
            with section("Accuracy by class"):
                self._classes = Element("div").classes("k-chart short")
                self._classes_hint = text_element("p", "").classes("k-soft")
            with section("Training data"):
                self._data = Element("div").classes("k-chart short")
                self._data_hint = text_element("p", "").classes("k-soft")
        with section("Exchange with other entities"):
            text_element("p", SUMS).classes("k-soft")
            self._partners = DataTable("Exchange with other entities", PARTNERS, empty="No exchange yet.")
        with section("Latest deliveries"):
            self._deliveries = delivery_table("Latest deliveries of this entity")
            anchor("All deliveries", f"/lineage?entity={self.id}")
        with section("Latest records"):
            self._records = DataTable(
                "Latest records of this entity", record_columns(sortable=False), empty="No records yet."
            )
            anchor("All records", f"/knowledge?entity={self.id}&show=all")

    def draw(self, view: HubView, now: datetime) -> None:
        """Show the current state of the entity."""
        entity = view.entities[self.id]
        silent = ago((now - entity.seen).total_seconds())
        seen = "just now" if silent == "now" else f"{silent} ago"
        tried = entity.absorbed + entity.declined
        net = entity.gained - entity.gave
        balance = "gained more" if net > 0 else "contributed more" if net < 0 else "balanced"
        values = (
            f"{'online' if entity.online(now) else 'offline'}, last seen {seen}",
            str(entity.round),
            "not reported" if entity.accuracy is None else percent(entity.accuracy),
            _own_accuracy(self.newest, entity.correct, entity.total),
            f"{points(entity.gained)} points in {entity.absorbed} kept of {tried} absorptions",
            f"{points(entity.gave)} points in {entity.taught} absorptions",
            f"{points(net)} points: {balance}",
            f"{entity.published} record{'' if entity.published == 1 else 's'}",
        )
        for name, value in zip(FACTS, values, strict=True):
            self._facts[name].set_text(value)
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
        own = [item for item in view.deliveries if self.id == item.student or self.id in item.publishers]
        self._deliveries.show([delivery_row(view, delivery) for delivery in own[::-1][:LATEST]])
        records = filter_records(view.records.values(), RecordFilter(publisher=self.id, state="all", size=LATEST))
        self._records.show([record_row(record) for record in records.rows])

    async def update(self) -> None:
        """Read the latest record if there is a newer one, and the log on this machine; draw what has changed."""
        with self.session.context.feed.reading() as view:
            newest, joined = view.entities[self.id].newest, view.entities[self.id].joined
        if newest is not None and (self.newest is None or self.newest.id != newest):
            # The layout shows that the hub is unreachable; the events are drawn all the same.
            with suppress(KUberError):
                self.newest = await asyncio.to_thread(self.session.context.reader.knowledge, newest)
        self.draw_charts()
        self._show_log(await asyncio.to_thread(self.session.context.logs.find, self.id, joined=joined))

    def _show_log(self, found: LoggedEntity | None) -> None:
        """Show what the log on this machine says, and nothing of an entity whose log is elsewhere."""
        deployed = found.deployed if found else None
        self._deployed_fact.set_visibility(deployed is not None)
        if deployed is not None:
            self._deployed.set_text(describe_deployed(deployed))
        report = found.report if found else None
        self._joining.set_visibility(found is not None and (report is not None or deployed is None))
        self._joining_table.set_visibility(report is not None)
        self._joining_hint.set_visibility(report is None)
        if found is not None and report is not None and found.reported is not None:
            self._joining_table.show(report, found.reported)

    def draw_charts(self, *, force: bool = False) -> None:
        """Draw the charts if their data have changed, or with `force`."""
        with self.session.context.feed.reading() as view:
            entity = view.entities[self.id]
            state = (len(entity.curve), len(entity.marks), entity.seen, self.newest and self.newest.id)
            if state == self._drawn and not force:
                return
            self._drawn = state
            selection = CurveSelection(highlighted={entity.id: entity.name}, is_all=True)
            options = accuracy_chart(HubView(entities={entity.id: entity}), selection, self.session.palette)
            correct, total = entity.correct, entity.total
        _redraw(self._curve, options if entity.curve else None)
        self._curve_hint.set_text("" if entity.curve else "It has not reported an accuracy.")
        self._facts["Own accuracy"].set_text(_own_accuracy(self.newest, correct, total))
        self._draw_classes(correct, total)
        self._draw_data()

    def _draw_classes(self, correct: tuple[int, ...], total: tuple[int, ...]) -> None:
        labels = self._labels(len(total))
        bars = {"now": recalls_of(correct, total)}
        description = "Accuracy by class, as last reported."
        options = bars_chart(labels, bars, self.session.palette, description=description, percent=True)
        _redraw(self._classes, options if total else None)
        self._classes_hint.set_text("" if total else "It has not reported an accuracy by class.")

    def _draw_data(self) -> None:
        counts = self.newest.class_counts if self.newest else None
        options = None
        if counts is not None:
            description = "Training samples by class."
            bars: dict[str, list[float | None]] = {"training samples": [float(count) for count in counts]}
            labels = self._labels(len(counts))
            options = bars_chart(labels, bars, self.session.palette, description=description, percent=False)
        _redraw(self._data, options)
        self._data_hint.set_text("" if counts is not None else "It does not disclose its samples by class.")

    def _labels(self, count: int) -> list[str]:
        if self.newest is not None and self.newest.task.classes == count:
            return list(self.newest.task.labels)
        return [f"class {number}" for number in range(count)]


def _own_accuracy(newest: Knowledge | None, correct: tuple[int, ...], total: tuple[int, ...]) -> str:
    """Return the reported recalls, weighted by the disclosed class counts; adjusted logits would do better there."""
    counts = newest.class_counts if newest is not None else None
    if counts is None or not total:
        return "unknown: it does not disclose its samples by class" if newest is not None else "not reported"
    if len(counts) != len(total) or not any(total):
        return "not reported"
    return f"{percent(accuracy_on(counts, recalls_of(correct, total)))} without its prior"


def _redraw(place: Element, options: dict[str, object] | None) -> None:
    """Show a chart with these options, or hide it without options."""
    place.set_visibility(options is not None)
    if options is None:
        return
    charts = [child for child in place.default_slot.children if isinstance(child, ui.echart)]
    if charts:
        charts[0].run_chart_method("setOption", options, {"replaceMerge": ["series", "xAxis"]})
    else:
        with place:
            ui.echart(options)


async def page(session: TabSession, id: str) -> None:
    """Build the page of an entity, and keep it up to date."""
    feed = session.context.feed
    if id not in feed.view.entities and not feed.caught_up:
        with Element("div") as waiting:
            text_element("h1", "Entity")
            text_element("p", "Reading the hub's history …").classes("k-empty").props("role=status")
        await ui.context.client.connected()
        while id not in feed.view.entities and not feed.caught_up:
            await asyncio.sleep(POLL_SECONDS)
        waiting.delete()
    with feed.reading() as view:
        known = view.entities.get(id)
    if known is None:
        ui.page_title("Entity not found · KUber")
        text_element("h1", "Entity not found")
        text_element("p", f"The hub has no entity {id[:100]}.").classes("k-fault").props("role=alert")
        anchor("All entities", "/")

        def reload_once_known() -> None:  # it may have joined a moment ago
            if id in feed.view.entities:
                ui.navigate.reload()

        ui.timer(POLL_SECONDS, reload_once_known)
        return
    ui.page_title(f"{known.name} · KUber")
    entity = EntityPage(session, id)
    entity.build(known)
    session.follow(entity.draw)
    await session.ready()
    await entity.update()
    session.on_scheme.append(lambda: entity.draw_charts(force=True))
    ui.timer(CHART_SECONDS, entity.update, immediate=False)
