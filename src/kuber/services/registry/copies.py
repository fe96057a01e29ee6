"""Copies: records with a file that another entity published before, or uploaded before."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from kuber.domain.blob import Owner
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Draft, Knowledge
from kuber.services.registry.schema import knowledge, knowledge_artifacts, later_copies

Owners = Mapping[Digest, Owner]

_WITH_FILE = select(knowledge_artifacts.c.knowledge).where(knowledge_artifacts.c.digest == bindparam("digest"))
_FIRST = (
    select(knowledge.c.seq, knowledge.c.id, knowledge.c.entity, knowledge.c.published_at)
    .join(knowledge_artifacts, knowledge_artifacts.c.knowledge == knowledge.c.seq)
    .where(knowledge_artifacts.c.digest == bindparam("digest"), knowledge.c.round > 0)
    .order_by(knowledge.c.copy_of.is_not(None), knowledge.c.seq)
    .limit(1)
)
_LATER = (
    (knowledge.c.seq.in_(_WITH_FILE))
    & (knowledge.c.round > 0)
    & (knowledge.c.entity != bindparam("publisher"))
    & (knowledge.c.published_at >= bindparam("stored"))
)
_LATER_ROWS = select(knowledge.c.seq, knowledge.c.id).where(_LATER)


def shared_files(connection: Connection, draft: Draft) -> list[Digest]:
    """Return the digests of the files of a draft that another entity was the first to publish; both are trained."""
    return [] if draft.round == 0 else [digest for digest, other in _first(connection, draft) if other is not None]


def copied_record(connection: Connection, record: Knowledge, owners: Owners) -> str | None:
    """Return the id of the first record with a file of this one, if another entity published it; both are trained.

    A file is that of its owner, once that has published it, and no longer of one who did so earlier.
    """
    if record.round == 0:
        return None
    others = [
        other
        for digest, other in _first(connection, record)
        if other is not None and not _owns(record, other, owners.get(digest))
    ]
    return min(others).id if others else None


def claim_files(connection: Connection, record: Knowledge, owners: Owners) -> list[str]:
    """Mark as its copies what others published of the files of an owner's new record. Return the ids of these."""
    if record.round == 0:
        return []
    ids: list[str] = []
    for digest, other in _first(connection, record):
        owner = owners.get(digest)
        if other is not None and owner is not None and _owns(record, other, owner):
            values = {"digest": digest.hex, "publisher": record.entity, "stored": owner.stored_at}
            rows = connection.execute(_LATER_ROWS, values).all()
            seqs = [row.seq for row in rows]
            ids += [row.id for row in rows]
            connection.execute(update(knowledge).where(knowledge.c.seq.in_(seqs)).values(copy_of=record.id))
            connection.execute(delete(later_copies).where(later_copies.c.knowledge.in_(seqs)))
            connection.execute(insert(later_copies), [{"knowledge": seq, "original": record.id} for seq in seqs])
    return ids


class _Record(NamedTuple):
    """A stored record with a file."""

    seq: int
    id: str
    entity: str
    published_at: datetime


def _first(connection: Connection, draft: Draft) -> Iterable[tuple[Digest, _Record | None]]:
    """Yield each file, and the first original record with it, if it is of another publisher."""
    for digest in {artifact.digest for artifact in draft.artifacts.values()}:
        row = connection.execute(_FIRST, {"digest": digest.hex}).one_or_none()
        yield digest, None if row is None or row.entity == draft.entity else _Record(*row)


def _owns(record: Draft, other: _Record, owner: Owner | None) -> bool:
    """Return whether the publisher of a record stored the file before another record with it was published."""
    return owner is not None and owner.entity == record.entity and owner.stored_at <= other.published_at
