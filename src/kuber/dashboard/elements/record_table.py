"""Records of knowledge as a table."""

from kuber.dashboard.elements.data_table import Column, TableRow, link, milliseconds, share
from kuber.views import size
from kuber.views.record_table import HubRecord

SHORT = 12  # characters of an id that are shown: its last, as the first ones tell the time
TONES = {"verified": "good", "pending": "soft", "unverifiable": "soft", "quarantined": "bad", "withdrawn": "bad"}
WORDS = {"pending": "not looked at"}


def record_columns(*, sortable: bool) -> tuple[Column, ...]:
    """The columns of a table of records."""
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


def record_row(one: HubRecord) -> TableRow:
    """A record as a row."""
    return TableRow(
        key=one.id,
        muted=not one.is_discoverable,
        cells=(
            link(one.id[-SHORT:], f"/knowledge/{one.id}"),
            link(one.name, f"/entity/{one.publisher}"),
            milliseconds(one.time),
            "start" if one.round == 0 else str(one.round),
            share(one.claimed),
            share(one.found),
            one.task,
            one.architecture,
            size(one.bytes),
            {"text": WORDS.get(one.state, one.state), "tone": TONES[one.state]},
        ),
    )
