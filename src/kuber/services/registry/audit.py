"""Audit log: each change of the registry, written in the change's transaction and numbered in commit order."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from kuber.domain.auth import PRIVATE_ACTS, AuditEntry
from kuber.services.registry.schema import audit

_INSERT = insert(audit)  # built once: SQLAlchemy takes longer to build a statement than to run it


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


def read_audit(connection: Connection, *, after: int, limit: int, public: bool) -> list[tuple[int, AuditEntry]]:
    """Return the entries after this number, each with its own number; with `public`, those that entities may see."""
    query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    if public:
        query = query.where(audit.c.act.not_in(PRIVATE_ACTS))
    return [
        (
            row.seq,
            AuditEntry(time=row.time, actor=row.actor, act=row.act, subject=row.subject, detail=row.detail or {}),
        )
        for row in connection.execute(query)
    ]
