"""Pages of listings, and the opaque cursors that continue them."""

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable
from itertools import accumulate, takewhile
from typing import Any

from sqlalchemy import Connection, Row, Select

from kuber.domain.message_limits import MAX_PAGE_BYTES
from kuber.domain.query import check_limit, invalid_cursor


def encode(order: str, *position: int | float | str) -> str:
    """Return the cursor that continues after `position` in a listing of this order."""
    return base64.urlsafe_b64encode(json.dumps([order, *position]).encode()).decode().rstrip("=")


def decode(cursor: str, order: str, *kinds: type) -> list[Any]:
    """Return the position in a cursor. RequestRejectedError unless `encode` made it for this order."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (UnicodeError, ValueError, binascii.Error, RecursionError):
        values = None
    if (
        not isinstance(values, list)
        or values[:1] != [order]
        or [type(value) for value in values[1:]] != list(kinds)
        or not all(
            value.isprintable() if isinstance(value, str) else math.isfinite(value) and abs(value) < 2**63
            for value in values[1:]
        )
    ):
        raise invalid_cursor()
    return values[1:]


def fetch_page(
    connection: Connection,
    query: Select[Any],
    seq: Any,
    limit: int,
    cursor: str | None,
    *,
    size_of: Callable[[Connection, list[Row[Any]]], list[int]] | None = None,
) -> tuple[list[Row[Any]], str | None]:
    """Return the rows of one page, ordered by the column `seq`, and the cursor of the next page.

    With `size_of`, which returns the bytes of rows as JSON, the page ends before it exceeds MAX_PAGE_BYTES. Raises
    RequestRejectedError when the limit is not from 1 to MAX_LIMIT, or the cursor is of another listing.
    """
    check_limit(limit)
    if cursor is not None:
        query = query.where(seq > decode(cursor, seq.table.name, int)[0])
    found = list(connection.execute(query.limit(limit + 1)).all())
    page = found[:limit]
    if size_of is not None:
        page = page[: fitting(size_of(connection, page))]
    return page, encode(seq.table.name, page[-1].seq) if len(page) < len(found) else None


def fitting(sizes: Iterable[int]) -> int:
    """Return how many of the first items, of these sizes in bytes, fit on a page; at least one."""
    return max(1, sum(1 for _ in takewhile(lambda total: total <= MAX_PAGE_BYTES, accumulate(sizes))))
