"""Publications: told twice, naming others, and as the event that tells of one."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, select

from kuber.domain.knowledge import Draft, Knowledge
from kuber.errors import ConflictError, RequestRejectedError
from kuber.services.registry.knowledge_reader import read_record
from kuber.services.registry.schema import knowledge

_USED = select(knowledge.c.seq, knowledge.c.draft).where(
    knowledge.c.entity == bindparam("entity"), knowledge.c.key == bindparam("key")
)


def earlier_publication(connection: Connection, draft: Draft, key: str, digest: str) -> Knowledge | None:
    """What this publisher stored under this key before; ConflictError when that was another draft."""
    row = connection.execute(_USED, {"entity": draft.entity, "key": key}).one_or_none()
    if row is None:
        return None
    if row.draft != digest:
        raise ConflictError("This key was used for another publication; choose a new key for each.")
    return read_record(connection, row.seq)


def check_named(connection: Connection, named: Iterable[str]) -> None:
    """RequestRejectedError unless all the knowledge named is in the registry."""
    if not (wanted := set(named)):
        return
    missing = wanted - set(connection.scalars(select(knowledge.c.id).where(knowledge.c.id.in_(wanted))))
    if missing:
        raise RequestRejectedError(f"The registry has no knowledge {min(missing)[:100]!r}; name only what it has.")


def publication_detail(record: Knowledge) -> dict[str, Any]:
    """What the event of a publication carries, so that who follows the events need not ask for each record."""
    return {
        "round": record.round,
        "accuracy": record.evaluation.accuracy,
        "task": record.task.name,
        "architecture": record.architecture.name,
        "bytes": sum(artifact.size for artifact in record.artifacts.values()),
    }
