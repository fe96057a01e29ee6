"""A table that a screen reader can read, with headers that sort, and rows that keep their focus when they change."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from nicegui.element import Element

from kuber.views import percent

# What the cells of a column hold: text, or a text with a link, or a list of those; a number as text; a time in
# milliseconds; a share with its text; a line as points of a polyline, 100 x 24; a state with its tone. None: nothing.
Kind = Literal["text", "number", "time", "share", "spark", "state"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column; `wide` leaves it out on narrow screens."""

    name: str
    label: str
    kind: Kind = "text"
    sortable: bool = False
    wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row; `key` is its own for as long as it lives."""

    key: str
    cells: tuple[Any, ...]
    muted: bool = False
    chosen: bool = False


class DataTable(Element, component="data_table.js", esm={"kuber-clock": "clock"}):
    """A table with a caption that is told to those who do not see it; `nothing` is said when it has no rows."""

    def __init__(
        self,
        caption: str,
        columns: Sequence[Column],
        *,
        nothing: str = "Nothing yet.",
        on_sort: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self._props["caption"] = caption
        self._props["columns"] = [asdict(column) for column in columns]
        self._props["nothing"] = nothing
        self._props["rows"] = []
        self._props["now"] = milliseconds(datetime.now(UTC))
        if on_sort is not None:
            self.on("sort", lambda event: on_sort(str(event.args)))

    def show(self, rows: Sequence[TableRow], *, sort: str | None = None, descending: bool = False) -> None:
        """Show these rows; nothing is sent when they are what is shown already."""
        told = [asdict(row) for row in rows]
        if (told, sort, descending) == (self._props["rows"], self._props.get("sort"), self._props.get("descending")):
            return
        self._props["rows"] = told
        self._props["sort"] = sort
        self._props["descending"] = descending
        self._props["now"] = milliseconds(datetime.now(UTC))
        self.update()


def milliseconds(time: datetime) -> int:
    """A time as browsers count it: since 1970, in UTC."""
    return round(1000 * time.timestamp())


def link(text: str, href: str, *, tone: str | None = None, told: str = "") -> dict[str, str]:
    """A cell, or a part of one, that leads somewhere; a dot of this tone before it means what `told` says."""
    return {"text": text, "href": href} | ({"tone": tone, "told": told} if tone else {})


def document(text: str, href: str) -> dict[str, str]:
    """A cell that leads to a document that is no page of the dashboard; it opens in a tab of its own."""
    return {"text": text, "href": href, "target": "_blank"}


def share(value: float | None) -> dict[str, Any] | None:
    """A cell of a share column: nothing where there is no value."""
    return None if value is None else {"share": round(value, 4), "text": percent(value)}


def spark(values: Sequence[float]) -> str | None:
    """A cell of a spark column: the values from their lowest to their highest."""
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    step = 100 / (len(values) - 1)
    height = [22 - 20 * (value - low) / (high - low) if high > low else 12 for value in values]
    return " ".join(f"{step * place:.1f},{y:.1f}" for place, y in enumerate(height))
