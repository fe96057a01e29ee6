"""Deliveries as a table: who learnt from whom, how, what it did, and why these."""

from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, link, milliseconds
from kuber.views import HubDelivery, HubView, percent, points

COLUMNS = (
    Column(name="time", label="When", kind="time"),
    Column(name="student", label="Student"),
    Column(name="teachers", label="Teachers"),
    Column(name="method", label="Method", wide=True),
    Column(name="round", label="Round", kind="number", wide=True),
    Column(name="before", label="Before", kind="number", wide=True),
    Column(name="after", label="After", kind="number", wide=True),
    Column(name="change", label="Change", kind="number"),
    Column(name="kept", label="Result", kind="state"),
    Column(name="why", label="Details"),
)


def delivery_table(caption: str) -> DataTable:
    """An empty table of deliveries."""
    return DataTable(caption, COLUMNS, nothing="No delivery here yet.")


def delivery_row(view: HubView, one: HubDelivery, *, chosen: bool = False) -> TableRow:
    """A delivery as a row."""
    teachers = [link(view.name_of(id), f"/entity/{id}") for id in one.publishers]
    return TableRow(
        key=str(one.number),
        muted=not one.kept,
        chosen=chosen,
        cells=(
            milliseconds(one.time),
            link(view.name_of(one.student), f"/entity/{one.student}"),
            teachers or "somebody",
            one.method,
            str(one.round),
            percent(one.before),
            percent(one.after),
            points(one.after - one.before),
            {"text": "kept", "tone": "good"} if one.kept else {"text": "undone", "tone": "soft"},
            link("why", f"/lineage?delivery={one.number}"),
        ),
    )
