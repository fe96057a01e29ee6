"""Table of a report on joining: alone and with KUber, for all samples and for each class."""

from datetime import datetime

from nicegui.element import Element

from kuber.dashboard.elements.data_table import Column, DataTable, TableRow
from kuber.dashboard.elements.text import Timestamp, text_element
from kuber.domain.joining_report import JoiningReport, ReportRow
from kuber.views.formatting import percent, points

MAX_CLASSES = 100
COLUMNS = (
    Column(name="figure", label=""),
    Column(name="samples", label="Samples", kind="number", wide=True),
    Column(name="alone", label="Alone", kind="number"),
    Column(name="joined", label="With KUber", kind="number"),
    Column(name="change", label="Change", kind="number"),
    Column(name="interval", label="95 % interval", kind="number", wide=True),
    Column(name="verdict", label="Verdict", kind="state"),
)


class JoiningTable:
    """A sentence, and the table below it; both are replaced by `show`."""

    def __init__(self) -> None:
        self._about = Element("p").classes("k-soft")
        self._table = DataTable("Alone and with KUber", COLUMNS)
        self._shown: JoiningReport | None = None

    def set_visibility(self, visible: bool) -> None:
        """Show or hide both."""
        self._about.set_visibility(visible)
        self._table.set_visibility(visible)

    def show(self, report: JoiningReport, at: datetime) -> None:
        """Show a report that was made at this time, unless it is shown already."""
        if report == self._shown:
            return
        self._shown = report
        rounds = f"{report.rounds} round{'' if report.rounds == 1 else 's'}"
        self._about.clear()
        with self._about:
            text_element("span", f"After {rounds}, on {report.accuracy.samples:,} samples of its own; compared ")
            Timestamp(at)
            text_element("span", ", from the event log on this machine. In per cent and points.")
            if len(report.classes) > MAX_CLASSES:
                text_element("span", f" Of {len(report.classes)} classes, those that lost most.")
        named = (("accuracy", report.accuracy), ("balanced accuracy", report.balanced))
        self._table.show(
            [_row(f"figure {label}", label, row) for label, row in named]
            + [_row(f"class {number}", f"class {row.label}", row) for number, row in enumerate(_classes(report))]
        )


def _classes(report: JoiningReport) -> tuple[ReportRow, ...]:
    """Return the rows of the classes, in their order; of too many, those that lost most."""
    if len(report.classes) <= MAX_CLASSES:
        return report.classes
    return tuple(sorted(report.classes, key=lambda row: row.difference)[:MAX_CLASSES])


def _row(key: str, label: str, row: ReportRow) -> TableRow:
    return TableRow(
        key=key,
        cells=(
            label,
            f"{row.samples:,}",
            percent(row.alone),
            percent(row.joined),
            points(row.difference),
            f"{points(row.low)} to {points(row.high)}",
            verdict(row),
        ),
    )


def verdict(row: ReportRow) -> dict[str, str]:
    """Return whether the difference is beyond noise, as the cell of a state."""
    if row.low > 0:
        return {"text": "better", "tone": "good"}
    return {"text": "worse", "tone": "bad"} if row.high < 0 else {"text": "within noise", "tone": "soft"}
