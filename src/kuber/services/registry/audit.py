"""Audit log: each change of the registry, written in the change's transaction and numbered in commit order."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Text, bindparam, case, cast, func, insert, null, or_, select

from kuber.domain.auth import PRIVATE_ACTS, AuditEntry
from kuber.domain.message_limits import MAX_EVENT_BYTES, MAX_PAGE_BYTES
from kuber.services.registry.schema import audit

BATCH = 100  # entries that a database or a feed reads at once
BATCH_BYTES = 256 << 10  # of entries for one follower; a slow one keeps them in memory
_ROW_BYTES = 500  # of an entry without its details, about

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_INSERT = insert(audit)
_size = func.coalesce(func.length(cast(audit.c.detail, Text)), 0)
_DETAIL = case((_size <= MAX_EVENT_BYTES, audit.c.detail), else_=null())
_ALL = (
    select(audit.c.seq, audit.c.time, audit.c.actor, audit.c.act, audit.c.subject)
    .add_columns(_size.label("size"), _DETAIL.label("detail"))
    .where(audit.c.seq > bindparam("after"))
    .order_by(audit.c.seq)
    .limit(bindparam("limit"))
)
_PUBLIC = _ALL.where(audit.c.act.not_in(PRIVATE_ACTS))


def add_entry(
    connection: Connection,
    time: datetime,
    actor: str,
    act: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry to the audit log."""
    row = {"time": time, "actor": actor, "act": act, "subject": subject, "detail": detail}
    connection.execute(_INSERT, row)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditFilter:
    """Conditions of wanted entries; None allows any."""

    entity: str | None = None  # id of the actor or subject
    act: str | None = None
    since: datetime | None = None

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Return the query with these conditions."""
        if self.entity is not None:
            query = query.where(or_(audit.c.actor == self.entity, audit.c.subject == self.entity))
        if self.act is not None:
            query = query.where(audit.c.act == self.act)
        if self.since is not None:
            query = query.where(audit.c.time >= self.since)
        return query


EVERYTHING = AuditFilter()


def read_audit(
    connection: Connection,
    *,
    after: int,
    limit: int,
    public: bool,
    max_bytes: int = MAX_PAGE_BYTES,
    wanted: AuditFilter = EVERYTHING,
) -> tuple[list[tuple[int, AuditEntry]], bool]:
    """Return the entries after this number, each with its own number, and whether more may follow them.

    With `public` those that entities may see. They are fewer than `limit` if they exceed `max_bytes`. Details that
    are too long, as an older version stored them, are replaced by their size.
    """
    found: list[tuple[int, AuditEntry]] = []
    size = 0
    query = wanted.apply(_PUBLIC if public else _ALL)
    while len(found) < limit:
        asked = min(BATCH, limit - len(found))
        values = {"after": found[-1][0] if found else after, "limit": asked}
        before = len(found)
        with connection.execute(query, values) as rows:
            for row in rows:
                omitted = {"omitted": row.size} if row.size > MAX_EVENT_BYTES else {}
                detail = row.detail or omitted
                entry = AuditEntry(time=row.time, actor=row.actor, act=row.act, subject=row.subject, detail=detail)
                found.append((row.seq, entry))
                size += _ROW_BYTES + (0 if omitted else row.size)
                if size >= max_bytes:
                    return found, True
        if len(found) - before < asked:
            return found, False
    return found, True
