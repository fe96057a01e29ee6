"""Pages of listings, and the opaque cursors that continue them."""

import base64
import binascii
import json
import math
from typing import Any

from sqlalchemy import Connection, Row, Select

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
    connection: Connection, query: Select[Any], seq: Any, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Return the rows of one page, ordered by the column `seq`, and the cursor of the next page.

    Raises RequestRejectedError when the limit is not from 1 to MAX_LIMIT, or the cursor is of another listing.
    """
    check_limit(limit)
    if cursor is not None:
        query = query.where(seq > decode(cursor, seq.table.name, int)[0])
    found = list(connection.execute(query.limit(limit + 1)).all())
    if len(found) <= limit:
        return found, None
    return found[:limit], encode(seq.table.name, found[limit - 1].seq)
