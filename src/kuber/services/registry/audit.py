"""The audit log: every change of the registry, in the transaction that makes it; its numbers are in commit order."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from kuber.domain.auth import PRIVATE_ACTS, AuditEntry
from kuber.services.registry.schema import audit

_LINE = insert(audit)


def note(
    connection: Connection,
    time: datetime,
    actor: str,
    act: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """One more line of the audit log."""
    row = {"time": time, "actor": actor, "act": act, "subject": subject, "detail": detail}
    connection.execute(_LINE, row)


def read_audit(connection: Connection, *, after: int, limit: int, public: bool) -> list[tuple[int, AuditEntry]]:
    """What follows the line with number `after`, with its numbers; when `public`, what every entity may know."""
    query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    if public:
        query = query.where(audit.c.act.not_in(PRIVATE_ACTS))
    return [
        (
            row.seq,
            AuditEntry(
                time=row.time,
                actor=row.actor,
                act=row.act,
                subject=row.subject,
                detail=row.detail or {},
            ),
        )
        for row in connection.execute(query)
    ]
