"""Table of deliveries: student, teachers, method, accuracies and result."""

from kuber.dashboard.elements.data_table import Column, DataTable, TableRow, link, milliseconds
from kuber.views.delivery import HubDelivery, why_kept
from kuber.views.formatting import percent, points
from kuber.views.hub import HubView

COLUMNS = (
    Column(name="time", label="Time", kind="time"),
    Column(name="student", label="Student"),
    Column(name="teachers", label="Teachers"),
    Column(name="method", label="Method", wide=True),
    Column(name="round", label="Round", kind="number", wide=True),
    Column(name="before", label="Before", kind="number", wide=True),
    Column(name="after", label="After", kind="number", wide=True),
    Column(name="change", label="Change", kind="number"),
    Column(name="kept", label="Result", kind="state"),
    Column(name="details", label="Details"),
)


def delivery_table(caption: str) -> DataTable:
    """Add an empty table of deliveries."""
    return DataTable(caption, COLUMNS, empty="No deliveries yet.")


def delivery_row(view: HubView, delivery: HubDelivery, *, chosen: bool = False) -> TableRow:
    """Return the row of a delivery."""
    kept = "kept despite the loss" if why_kept(delivery.reason) else "kept"
    teachers = [link(view.name_of(id), f"/entity/{id}") for id in delivery.publishers]
    return TableRow(
        key=str(delivery.number),
        muted=not delivery.kept,
        chosen=chosen,
        cells=(
            milliseconds(delivery.time),
            link(view.name_of(delivery.student), f"/entity/{delivery.student}"),
            teachers or "unknown",
            delivery.method,
            str(delivery.round),
            percent(delivery.before),
            percent(delivery.after),
            points(delivery.after - delivery.before),
            {"text": kept, "tone": "good"} if delivery.kept else {"text": "not kept", "tone": "soft"},
            link("details", f"/lineage?delivery={delivery.number}"),
        ),
    )
