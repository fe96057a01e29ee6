"""Table of records of knowledge."""

from kuber.dashboard.elements.data_table import Column, TableRow, link, milliseconds, share
from kuber.views.formatting import size
from kuber.views.record_table import HubRecord

SHORT = 12  # last characters of an id that are shown; the first are a time
TONES = {"verified": "good", "pending": "soft", "unverifiable": "soft", "quarantined": "bad", "withdrawn": "bad"}
STATE_NAMES = {"pending": "not verified"}


def record_columns(*, sortable: bool) -> tuple[Column, ...]:
    """Return the columns of a table of records."""
    return (
        Column(name="id", label="Record"),
        Column(name="name", label="Entity", sortable=sortable),
        Column(name="time", label="Published", kind="time", sortable=sortable, wide=True),
        Column(name="round", label="Round", kind="number", sortable=sortable, wide=True),
        Column(name="claimed", label="Claimed", kind="share", sortable=sortable),
        Column(name="found", label="Verified", kind="share", sortable=sortable, wide=True),
        Column(name="task", label="Task", sortable=sortable, wide=True),
        Column(name="architecture", label="Architecture", sortable=sortable, wide=True),
        Column(name="bytes", label="Size", kind="number", sortable=sortable, wide=True),
        Column(name="state", label="State", kind="state"),
    )


def record_row(record: HubRecord) -> TableRow:
    """Return the row of a record."""
    return TableRow(
        key=record.id,
        muted=not record.is_discoverable,
        cells=(
            link(record.id[-SHORT:], f"/knowledge/{record.id}"),
            link(record.name, f"/entity/{record.publisher}"),
            milliseconds(record.time),
            "initial" if record.round == 0 else str(record.round),
            share(record.claimed),
            share(record.found),
            record.task,
            record.architecture,
            size(record.bytes),
            {"text": STATE_NAMES.get(record.state, record.state), "tone": TONES[record.state]},
        ),
    )
