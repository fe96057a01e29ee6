"""Entities to rows and back: their names, their keys, and what they may sign."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update

from kuber.domain.knowledge import Draft
from kuber.domain.member import Key, Member
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError
from kuber.services.registry.schema import entities, entity_keys
from kuber.signing import check_sequence

_BY_ID = select(entities).where(entities.c.id == bindparam("entity"))
_KEYS = (
    select(entity_keys)
    .where(entity_keys.c.entity.in_(bindparam("entities", expanding=True)))
    .order_by(entity_keys.c.position)
)
_COUNT = (
    update(entities)
    .where(entities.c.id == bindparam("entity"), entities.c.sequence < bindparam("next"))
    .values(sequence=bindparam("next"))
)


def read_members(connection: Connection, rows: Sequence[Row[Any]]) -> tuple[Member, ...]:
    """The entities of these rows, with their keys."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for part in connection.execute(_KEYS, {"entities": [row.id for row in rows]}):
        keys[part.entity].append(Key(public_key=part.public_key, since=part.since, signature=part.signature))
    return tuple(
        Member(
            id=row.id,
            name=row.name,
            registered_at=row.registered_at,
            sequence=row.sequence,
            keys=tuple(keys[row.id]),
        )
        for row in rows
    )


def find_member(connection: Connection, chosen: Select[Any]) -> Member | None:
    """The one entity that `chosen` selects."""
    found = read_members(connection, connection.execute(chosen).all())
    return found[0] if found else None


def read_member(connection: Connection, id: str) -> Member:
    """The entity with this id; KnowledgeNotFoundError when there is none."""
    member = member_named(connection, id)
    if member is None:
        raise KnowledgeNotFoundError(f"The registry has no entity {id[:100]!r}.")
    return member


def member_named(connection: Connection, id: str) -> Member | None:
    """The entity with this id, if there is one."""
    found = read_members(connection, connection.execute(_BY_ID, {"entity": id}).all())
    return found[0] if found else None


def registered_member(connection: Connection, id: str) -> Member:
    """The entity with this id; RequestRejectedError when there is none."""
    member = member_named(connection, id)
    if member is None:
        raise RequestRejectedError(f"No entity {id[:100]!r} is registered here; register first.")
    return member


def insert_member(connection: Connection, member: Member) -> None:
    """Store a new entity and its keys."""
    row = {"id": member.id, "name": member.name, "registered_at": member.registered_at, "sequence": 0}
    connection.execute(insert(entities), row)
    for key in member.keys:
        insert_key(connection, member.id, key, position=0)


def insert_key(connection: Connection, entity: str, key: Key, *, position: int) -> None:
    """Store one more key of an entity."""
    row = {"public_key": key.public_key, "since": key.since, "signature": key.signature}
    connection.execute(insert(entity_keys), {"entity": entity, "position": position, **row})


def last_sequence(connection: Connection, entity: str) -> int:
    """Of the entity's last signed record; 0 before the first."""
    return connection.scalar(select(entities.c.sequence).where(entities.c.id == entity)) or 0


def count_record(connection: Connection, draft: Draft) -> None:
    """Note the sequence of a signed record."""
    if draft.signature is None:
        return
    if not connection.execute(_COUNT, {"entity": draft.entity, "next": draft.sequence}).rowcount:
        check_sequence(draft, last_sequence(connection, draft.entity))
