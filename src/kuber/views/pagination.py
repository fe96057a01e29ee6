"""One page of the rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPage(Generic[T]):
    """The rows of one page, and which page it is."""

    rows: tuple[T, ...]
    total: int  # rows of all pages
    page: int  # counted from 1
    pages: int


def paginate(rows: Sequence[T], *, page: int, size: int) -> RowPage[T]:
    """Return a page of `size` rows: number `page`, counted from 1, or the nearest page that exists.

    An empty table has one empty page.
    """
    pages = max(1, -(-len(rows) // size))
    page = min(max(1, page), pages)
    start = (page - 1) * size
    return RowPage(rows=tuple(rows[start : start + size]), total=len(rows), page=page, pages=pages)
