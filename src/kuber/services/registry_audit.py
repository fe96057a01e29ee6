"""The audit log: every change of the registry, in the transaction that makes it."""

from datetime import datetime

from sqlalchemy import Connection, insert

from kuber.services.registry_tables import audit


def note(connection: Connection, time: datetime, actor: str, act: str, subject: str) -> None:
    """One more line of the audit log."""
    connection.execute(insert(audit), {"time": time, "actor": actor, "act": act, "subject": subject})
