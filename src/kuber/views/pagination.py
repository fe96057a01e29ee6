"""A table cut into pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPage(Generic[T]):
    """The rows of one page; `page` is the nearest one that exists."""

    rows: tuple[T, ...]
    total: int  # rows of all pages
    page: int
    pages: int


def paginate(rows: Sequence[T], *, page: int, size: int) -> RowPage[T]:
    """The rows of this page, counted from 1, of pages of so many rows; of nothing there is one empty page."""
    pages = max(1, -(-len(rows) // size))
    page = min(max(1, page), pages)
    start = (page - 1) * size
    return RowPage(rows=tuple(rows[start : start + size]), total=len(rows), page=page, pages=pages)
