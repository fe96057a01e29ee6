"""Page of a record: claimed, attested and verified accuracy, signature, lineage, operator actions."""

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
from kuber.dashboard.elements.record_table import STATE_NAMES, TONES
from kuber.dashboard.elements.text import Timestamp, anchor, fact, facts, section, text_element
from kuber.dashboard.hub_reader import Generation, HubReader, Signature
from kuber.dashboard.session import CHART_SECONDS, TabSession, update_address
from kuber.domain.evaluation import mean_recalls, recalls_of
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation
from kuber.errors import KUberError
from kuber.views.evaluation_set import claimed, class_recalls, describe_set, ranked_by
from kuber.views.formatting import percent, size
from kuber.views.hub import HubView
from kuber.views.stated_prior import describe_prior

MAX_DELIVERIES = 25
SIGNATURE_TONES = {"valid": "good", "wrong": "bad"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordDetails:
    """A record, with everything else that the page reads from the hub."""

    record: Knowledge
    attestations: tuple[Attestation, ...]
    signature: Signature
    generations: tuple[Generation, ...]


def read_details(reader: HubReader, id: str) -> RecordDetails:
    """Read everything that the page shows from the hub. Blocks."""
    record = reader.knowledge(id, fresh=True)
    return RecordDetails(
        record=record,
        attestations=reader.registry.attestations(id),
        signature=reader.signature(record),
        generations=tuple(reader.ancestors(record)),
    )


class RecordPage:
    """The page in one tab."""

    def __init__(self, session: TabSession, arguments: PageArguments, id: str) -> None:
        self.session = session
        self.id = id
        self._arguments = arguments
        self.details: RecordDetails | None = None
        self.state = ""  # when the details were read
        self.judgements = 0
        self._dialogs: list[ConfirmDialog] = []
        self._taught: DataTable | None = None
        self._fault = ""  # the last error message
        if arguments.query_parameters.get("entity"):
            session.compared = arguments.query_parameters["entity"]
        elif session.compared:
            update_address(arguments, {"entity": session.compared})

    async def load(self) -> None:
        """Read the details from the hub and show them."""
        with self.session.context.feed.reading() as view:
            known = view.records.get(self.id)
            self.state, self.judgements = (known.state, known.judgements) if known else ("", 0)
        try:
            self.details = await asyncio.to_thread(read_details, self.session.context.reader, self.id)
        except KUberError as error:
            self.details = self._taught = None
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
        """Build the heading, and a place for the details."""
        text_element("h1", f"Record {self.id[-12:]}")
        self.body = Element("div")
        with self.body:
            text_element("p", "Loading the record …").classes("k-empty").props("role=status")

    async def update(self) -> None:
        """Read the details again after an event about this record."""
        with self.session.context.feed.reading() as view:
            known = view.records.get(self.id)
            changed = known is not None and known.judgements != self.judgements
            self._deliveries(view)
        offline = self.session.context.feed.offline
        confirming = any(dialog.value for dialog in self._dialogs)  # an open dialog is not replaced
        if (changed and not confirming) or (self.details is None and offline is None):
            await self.load()

    def draw_chart(self) -> None:
        """Draw the chart and the table of its numbers."""
        if self.details is None:
            return
        bars = self._bars()
        labels = self.details.record.task.labels
        self.place.clear()
        with self.place:
            description = "Accuracy by class: " + ", ".join(bars)
            ui.echart(bars_chart(labels, bars, self.session.palette, description=description, percent=True))
        rows = [
            TableRow(key=label, cells=(label, *(None if value is None else percent(value) for value in values)))
            for label, *values in zip(labels, *bars.values(), strict=True)
        ]
        self.numbers.clear()
        with self.numbers:
            columns = [
                Column(name="class", label="Class"),
                *(Column(name=name, label=name, kind="number") for name in bars),
            ]
            DataTable("Accuracy by class", columns).show(rows)

    def _show(self) -> None:
        if self.details is None:
            return
        record = self.details.record
        self.body.clear()
        with self.session.context.feed.reading() as view, self.body:
            publisher = view.name_of(record.entity)
            _facts(self.details, publisher, self.state)
            self._dialogs = record_actions(self.session, record, self.state)
            with section("Accuracy by class"):
                with Element("div").classes("k-tools"):
                    entities = {id: name for id, name in view.names.items() if view.entities[id].total}
                    options = {"": "no entity"} | entities
                    SelectField("Compare with", options, self.session.compared, self._compare)
                self.place = Element("div").classes("k-chart")
                self.numbers = Element("div")
            with section("Learned from"):
                _ancestors(view, self.details.generations)
            with section("Taught others"):
                self._taught = delivery_table("Deliveries with this teacher")
                self._deliveries(view)
        if self.session.dark is not None:
            self.draw_chart()

    def _deliveries(self, view: HubView) -> None:
        if self._taught is not None:
            own = [item for item in view.deliveries if self.id in item.teachers][::-1][:MAX_DELIVERIES]
            self._taught.show([delivery_row(view, delivery) for delivery in own])

    def _bars(self) -> dict[str, list[float | None]]:
        """Return the accuracy by class of each source."""
        assert self.details is not None
        record, attestations = self.details.record, self.details.attestations
        bars = {"claimed": class_recalls(record)}
        if attestations:
            count = len(attestations)
            name = "attested by 1 entity" if count == 1 else f"attested by {count} entities (mean)"
            bars[name] = mean_recalls(attestation.evaluation.recalls for attestation in attestations)
        if record.verification is not None and record.verification.evaluation is not None:
            bars["verified"] = list(record.verification.evaluation.recalls)
        with self.session.context.feed.reading() as view:
            entity = view.entities.get(self.session.compared)
            if entity is not None and len(entity.total) == record.task.classes:
                bars[f"{entity.name} now"] = list(recalls_of(entity.correct, entity.total))
        return bars

    def _compare(self, id: str) -> None:
        self.session.compared = id
        update_address(self._arguments, {"entity": id})
        self.draw_chart()


def _facts(details: RecordDetails, publisher: str, state: str) -> None:
    """Add the facts of a record."""
    record = details.record
    with facts():
        with fact("State"):
            text_element("span", STATE_NAMES.get(state, state)).classes(f"k-state {TONES.get(state, 'soft')}")
            if record.verification is not None:
                text_element("span", f" {record.verification.reason}")
        with fact("Publisher"):
            anchor(publisher, f"/entity/{record.entity}")
            text_element("span", ", before round 1" if record.round == 0 else f", after round {record.round}")
        with fact("Published"):
            Timestamp(record.published_at)
        with fact("Accuracy"):
            text_element("span", f"{claimed(record)} claimed")
            if record.verification is not None and record.verification.evaluation is not None:
                text_element("span", f", {percent(record.verification.evaluation.accuracy)} verified")
        with fact("Evaluated on"):
            text_element("span", describe_set(record))
        with fact("Signature"):
            signature = details.signature
            text_element("span", signature.state).classes(f"k-state {SIGNATURE_TONES[signature.state]}")
            text_element("span", f" {signature.sentence}")
        shape = " × ".join(map(str, record.task.input_shape))
        with fact("Task"):
            text_element("span", f"{record.task.name}: {record.task.classes} classes, samples of {shape}")
        with fact("Architecture"):
            arguments = ", ".join(f"{name}={value}" for name, value in record.architecture.arguments.items())
            text_element("span", f"{record.architecture.name}({arguments})")
        prior = describe_prior(record)
        if prior is not None:
            with fact("Prior of its logits"):
                text_element("span", prior)
        with fact("Training samples"):
            count = record.sample_count
            text_element("span", "not disclosed" if count is None else f"{count:,}")
        for kind, artifact in record.artifacts.items():
            with fact(f"File: {kind}"):
                text_element("span", f"{size(artifact.size)}, ")
                anchor("download", f"/download/{quote(record.id)}/{quote(kind)}").props("download")
                text_element("code", str(artifact.digest)).classes("k-block")
        with fact("Id", whole=True):
            text_element("code", record.id)


def _ancestors(view: HubView, generations: tuple[Generation, ...]) -> None:
    """Add a list of the record's ancestors, by generation."""
    if not generations:
        text_element("p", "It did not learn from any other record.").classes("k-empty")
        return
    with Element("ol").classes("k-generations"):
        for generation in generations:
            with Element("li"):
                text_element("span", "learned from " if generation.depth == 1 else "which learned from ")
                for number, record in enumerate(generation.records):
                    text_element("span", ", " if number else "")
                    anchor(f"{view.name_of(record.entity)}, round {record.round}", f"/knowledge/{record.id}")
                    text_element("span", f" ({ranked_by(record)})")


async def page(session: TabSession, arguments: PageArguments, id: str) -> None:
    """Build the page of a record, and keep it up to date."""
    ui.page_title(f"Record {id[-12:]} · KUber")
    record = RecordPage(session, arguments, id)
    record.build()
    await session.ready()
    await record.load()
    session.on_scheme.append(record.draw_chart)
    session.on_token.append(record._show)
    ui.timer(CHART_SECONDS, record.update, immediate=False)
