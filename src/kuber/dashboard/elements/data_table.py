"""Accessible table whose headers sort, and whose rows keep their focus when they change."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from nicegui.element import Element

from kuber.views.formatting import percent

# The cells of a column: text, a link, or a list of both; a number as text; a time in milliseconds; a share with its
# text; a spark line as points of a polyline, 100 x 24; a state with its tone. None is an empty cell.
Kind = Literal["text", "number", "time", "share", "spark", "state"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column; narrow screens omit a `wide` one."""

    name: str
    label: str
    kind: Kind = "text"
    sortable: bool = False
    wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A row; its `key` identifies it across updates."""

    key: str
    cells: tuple[Any, ...]
    muted: bool = False
    chosen: bool = False


class DataTable(Element, component="data_table.js", esm={"kuber-clock": "clock"}):
    """Table with a caption for screen readers, and the text `empty` in place of rows."""

    def __init__(
        self,
        caption: str,
        columns: Sequence[Column],
        *,
        empty: str = "No rows.",
        on_sort: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self._props["caption"] = caption
        self._props["columns"] = [asdict(column) for column in columns]
        self._props["empty"] = empty
        self._props["rows"] = []
        self._props["now"] = milliseconds(datetime.now(UTC))
        if on_sort is not None:
            self.on("sort", lambda event: on_sort(str(event.args)))

    def show(self, rows: Sequence[TableRow], *, sort: str | None = None, descending: bool = False) -> None:
        """Show these rows; sends nothing if they have not changed."""
        items = [asdict(row) for row in rows]
        if (items, sort, descending) == (self._props["rows"], self._props.get("sort"), self._props.get("descending")):
            return
        self._props["rows"] = items
        self._props["sort"] = sort
        self._props["descending"] = descending
        self._props["now"] = milliseconds(datetime.now(UTC))
        self.update()


def milliseconds(time: datetime) -> int:
    """Return a time as JavaScript has it: milliseconds since 1970, in UTC."""
    return round(1000 * time.timestamp())


def link(text: str, href: str, *, tone: str | None = None, label: str = "") -> dict[str, str]:
    """Return a cell, or a part of one, with a link; `label` is the text for a dot of this tone."""
    return {"text": text, "href": href} | ({"tone": tone, "label": label} if tone else {})


def document(text: str, href: str) -> dict[str, str]:
    """Return a cell with a link to a document, which opens in a new tab."""
    return {"text": text, "href": href, "target": "_blank"}


def share(value: float | None) -> dict[str, Any] | None:
    """Return a cell of a share column."""
    return None if value is None else {"share": round(value, 4), "text": percent(value)}


def spark(values: Sequence[float]) -> str | None:
    """Return a cell of a spark column, scaled from the lowest to the highest value."""
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    step = 100 / (len(values) - 1)
    height = [22 - 20 * (value - low) / (high - low) if high > low else 12 for value in values]
    return " ".join(f"{step * place:.1f},{y:.1f}" for place, y in enumerate(height))
