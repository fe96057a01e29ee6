"""One record: what is claimed, attested and verified of it, where it comes from, who signed it."""

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

from nicegui import ui
from nicegui.element import Element
from nicegui.page_arguments import PageArguments

from kuber.dashboard.charts import bars_chart
from kuber.dashboard.elements.admin_actions import record_actions
from kuber.dashboard.elements.confirm_dialog import ConfirmDialog
from kuber.dashboard.elements.controls import SelectField
from kuber.dashboard.elements.data_table import Column, DataTable, TableRow
from kuber.dashboard.elements.delivery_table import delivery_row, delivery_table
from kuber.dashboard.elements.record_table import TONES, WORDS
from kuber.dashboard.elements.text import Timestamp, anchor, fact, facts, section, text_element
from kuber.dashboard.hub_reader import Generation, HubReader, Signature
from kuber.dashboard.session import PICTURE_SECONDS, TabSession, remember
from kuber.domain.evaluation import mean_recalls, recalls_of
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation
from kuber.errors import KUberError
from kuber.views import HubView, percent, size

SIZE = 25  # deliveries
SIGNED = {"valid": "good", "missing": "soft", "wrong": "bad"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordDetails:
    """What the hub tells of a record."""

    record: Knowledge
    attestations: tuple[Attestation, ...]
    signature: Signature
    generations: tuple[Generation, ...]


def ask(source: HubReader, id: str) -> RecordDetails:
    """Ask the hub for everything that the page shows. Blocks."""
    record = source.knowledge(id, fresh=True)
    return RecordDetails(
        record=record,
        attestations=source.attestations(id),
        signature=source.signature(record),
        generations=tuple(source.ancestors(record)),
    )


class Record:
    """The page as one reader sees it."""

    def __init__(self, visit: TabSession, arguments: PageArguments, id: str) -> None:
        self.visit = visit
        self.id = id
        self._arguments = arguments
        self.told: RecordDetails | None = None
        self.state = ""  # as it was when the hub was asked
        self.judged = 0
        self._questions: list[ConfirmDialog] = []
        self._taught: DataTable | None = None
        self._fault = ""  # what was said last of a record that could not be had
        if arguments.query_parameters.get("entity"):
            visit.beside = arguments.query_parameters["entity"]
        elif visit.beside:
            remember(arguments, {"entity": visit.beside})

    async def load(self) -> None:
        """Ask the hub, and show what it tells."""
        with self.visit.site.feed.reading() as view:
            known = view.records.get(self.id)
            self.state, self.judged = (known.state, known.judgements) if known else ("", 0)
        try:
            self.told = await asyncio.to_thread(ask, self.visit.site.source, self.id)
        except KUberError as error:
            self.told = self._taught = None
            if error.message == self._fault:
                return
            self._fault = error.message
            self.body.clear()
            with self.body:
                text_element("p", error.message).classes("k-fault").props("role=alert")
                anchor("All knowledge", "/knowledge")
            return
        self._fault = ""
        self._show()

    def build(self) -> None:
        """The heading, and a place for what is asked for."""
        text_element("h1", f"Record {self.id[-12:]}")
        self.body = Element("div")
        with self.body:
            text_element("p", "Asking the hub …").classes("k-empty").props("role=status")

    async def look(self) -> None:
        """Ask again when the hub says that something happened to this record."""
        with self.visit.site.feed.reading() as view:
            known = view.records.get(self.id)
            changed = known is not None and known.judgements != self.judged
            self._deliveries(view)
        away = self.visit.site.feed.away
        asked = any(one.value for one in self._questions)  # nobody is interrupted
        if (changed and not asked) or (self.told is None and away is None):
            await self.load()

    def draw_chart(self) -> None:
        """Draw the picture anew."""
        if self.told is None:
            return
        bars = self._bars()
        labels = self.told.record.task.labels
        self.place.clear()
        with self.place:
            told = "Accuracy on each class: " + ", ".join(bars)
            ui.echart(bars_chart(labels, bars, self.visit.palette, told=told, percent=True))
        told_of = zip(labels, *bars.values(), strict=True)
        rows = [
            TableRow(key=label, cells=(label, *(None if value is None else percent(value) for value in values)))
            for label, *values in told_of
        ]
        self.numbers.clear()
        with self.numbers:
            columns = [
                Column(name="class", label="Class"),
                *(Column(name=name, label=name, kind="number") for name in bars),
            ]
            DataTable("Accuracy on each class", columns).show(rows)

    def _show(self) -> None:
        if self.told is None:
            return
        record = self.told.record
        self.body.clear()
        with self.visit.site.feed.reading() as view, self.body:
            publisher = view.name_of(record.entity)
            _facts(self.told, publisher, self.state)
            self._questions = record_actions(self.visit, record, self.state)
            with section("Accuracy on each class"):
                with Element("div").classes("k-tools"):
                    told = {id: name for id, name in view.names.items() if view.entities[id].total}
                    offered = {"": "nobody"} | told
                    SelectField("Beside", offered, self.visit.beside, self._beside)
                self.place = Element("div").classes("k-chart")
                self.numbers = Element("div")
            with section("Comes from"):
                _ancestors(view, self.told.generations)
            with section("Taught"):
                self._taught = delivery_table("Deliveries that it took part in")
                self._deliveries(view)
        if self.visit.dark is not None:
            self.draw_chart()

    def _deliveries(self, view: HubView) -> None:
        if self._taught is not None:
            mine = [one for one in view.deliveries if self.id in one.teachers][::-1][:SIZE]
            self._taught.show([delivery_row(view, one) for one in mine])

    def _bars(self) -> dict[str, list[float | None]]:
        """What is said of each class, and by whom."""
        assert self.told is not None
        record, attestations = self.told.record, self.told.attestations
        bars = {"claimed": list(record.evaluation.recalls)}
        if attestations:
            count = len(attestations)
            name = "attested by 1 entity" if count == 1 else f"attested by {count} entities (mean)"
            bars[name] = mean_recalls(one.evaluation.recalls for one in attestations)
        if record.verification is not None and record.verification.evaluation is not None:
            bars["verified"] = list(record.verification.evaluation.recalls)
        with self.visit.site.feed.reading() as view:
            beside = view.entities.get(self.visit.beside)
            if beside is not None and len(beside.total) == record.task.classes:
                bars[f"{beside.name} now"] = list(recalls_of(beside.correct, beside.total))
        return bars

    def _beside(self, id: str) -> None:
        self.visit.beside = id
        remember(self._arguments, {"entity": id})
        self.draw_chart()


def _facts(told: RecordDetails, publisher: str, state: str) -> None:
    """What the record says of itself, and what became of it."""
    record = told.record
    with facts():
        with fact("State"):
            text_element("span", WORDS.get(state, state)).classes(f"k-state {TONES.get(state, 'soft')}")
            if record.verification is not None:
                text_element("span", f" {record.verification.reason}")
        with fact("Publisher"):
            anchor(publisher, f"/entity/{record.entity}")
            text_element(
                "span", ", before it was trained" if record.round == 0 else f", after its round {record.round}"
            )
        with fact("Published"):
            Timestamp(record.published_at)
        with fact("Accuracy"):
            text_element("span", f"{percent(record.evaluation.accuracy)} claimed")
            if record.verification is not None and record.verification.evaluation is not None:
                text_element("span", f", {percent(record.verification.evaluation.accuracy)} verified")
        with fact("Signature"):
            text_element("span", told.signature.state).classes(f"k-state {SIGNED[told.signature.state]}")
            text_element("span", f" {told.signature.sentence}")
        shape = " × ".join(map(str, record.task.input_shape))
        with fact("Task"):
            text_element(
                "span",
                f"{record.task.name}: {record.task.classes} classes, samples of {shape}",
            )
        with fact("Architecture"):
            arguments = ", ".join(f"{name}={value}" for name, value in record.architecture.arguments.items())
            text_element("span", f"{record.architecture.name}({arguments})")
        with fact("Training samples"):
            told_count = record.sample_count
            text_element("span", "not told" if told_count is None else f"{told_count:,}")
        for kind, artifact in record.artifacts.items():
            with fact(f"File: {kind}"):
                text_element("span", f"{size(artifact.size)}, ")
                anchor("download", f"/download/{quote(record.id)}/{quote(kind)}").props("download")
                text_element("code", str(artifact.digest)).classes("k-block")
        with fact("Id", whole=True):
            text_element("code", record.id)


def _ancestors(view: HubView, generations: tuple[Generation, ...]) -> None:
    """What the record learnt from, generation by generation."""
    if not generations:
        text_element("p", "It learnt from nobody: it names no record as a parent.").classes("k-empty")
        return
    with Element("ol").classes("k-generations"):
        for generation in generations:
            with Element("li"):
                text_element("span", "learnt from " if generation.depth == 1 else "these learnt from ")
                for number, one in enumerate(generation.records):
                    text_element("span", ", " if number else "")
                    anchor(f"{view.name_of(one.entity)}, round {one.round}", f"/knowledge/{one.id}")
                    text_element("span", f" ({percent(one.trusted.accuracy)})")


async def page(visit: TabSession, arguments: PageArguments, id: str) -> None:
    """One record."""
    ui.page_title(f"Record {id[-12:]} · KUber")
    record = Record(visit, arguments, id)
    record.build()
    await visit.drawn()
    await record.load()
    visit.on_scheme.append(record.draw_chart)
    visit.on_token.append(record._show)
    ui.timer(PICTURE_SECONDS, record.look, immediate=False)
