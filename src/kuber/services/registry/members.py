"""Members in the database: their names, their keys, and the sequence of their signed records."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, Connection, Row, bindparam, func, insert, or_, select, update

from kuber.domain.entity_names import check_distinct, form_of, skeletons
from kuber.domain.knowledge import Draft
from kuber.domain.member import SEQUENCE_STEP, Key, Member
from kuber.domain.publication_checks import not_registered
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError
from kuber.services.registry.schema import entities, entity_keys, entity_skeletons
from kuber.signing import check_sequence

MAX_LISTED = 1000  # keys of a member in a message
_MEMBER_BYTES, _KEY_BYTES = 1500, 300  # as JSON, about

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_BY_ID = select(entities).where(entities.c.id == bindparam("id"))
_BY_NAME = select(entities).where(entities.c.name == bindparam("name"))
_KEYS = (
    select(entity_keys)
    .where(entity_keys.c.entity.in_(bindparam("entities", expanding=True)))
    .order_by(entity_keys.c.position)
)
_NAMED = bindparam("named", type_=Boolean)
_ADVANCE = (
    update(entities)
    .where(
        entities.c.id == bindparam("entity"),
        entities.c.sequence < bindparam("next"),
        entities.c.sequence >= bindparam("least"),
        or_(entities.c.signs_hub.is_(False), _NAMED),
    )
    .values(sequence=bindparam("next"), signs_hub=or_(entities.c.signs_hub, _NAMED))
)


def member_sizes(connection: Connection, rows: Sequence[Row[Any]]) -> list[int]:
    """Return about how many bytes of JSON these members are with their keys."""
    last = select(entity_keys.c.entity, func.max(entity_keys.c.position))
    of_rows = entity_keys.c.entity.in_([row.id for row in rows])
    keys = {row[0]: row[1] for row in connection.execute(last.where(of_rows).group_by("entity"))}
    return [_MEMBER_BYTES + _KEY_BYTES * keys.get(row.id, 0) for row in rows]


def read_members(connection: Connection, rows: Sequence[Row[Any]]) -> tuple[Member, ...]:
    """Return the members of these rows, with their keys."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for row in connection.execute(_KEYS, {"entities": [row.id for row in rows]}):
        key = Key(
            public_key=row.public_key,
            since=row.since,
            signature=row.signature,
            hub=row.hub,
            by_hub=row.by_hub or None,
        )
        keys[row.entity].append(key)
    return tuple(
        Member(
            id=row.id,
            name=row.name,
            registered_at=row.registered_at,
            sequence=row.sequence,
            keys=tuple(keys[row.id][-MAX_LISTED:]),  # older versions accepted any number
        )
        for row in rows
    )


def find_member(connection: Connection, *, id: str | None = None, name: str | None = None) -> Member | None:
    """Return the member with this id or else this name, if there is one."""
    query, values = (_BY_ID, {"id": id}) if id is not None else (_BY_NAME, {"name": name})
    found = read_members(connection, connection.execute(query, values).all())
    return found[0] if found else None


def find_named(connection: Connection, name: str) -> Member | None:
    """Return the member that has this name, or the form of it that is kept; members of earlier versions have any."""
    if not name.isprintable():  # which no name is, and not every database could look it up
        return None
    return find_member(connection, name=name) or find_member(connection, name=form_of(name))


def add_member(connection: Connection, member: Member) -> None:
    """Store a new member and its keys. ConflictError when its name can be mistaken for another's."""
    alike = sorted(skeletons(member.name))
    of = entity_skeletons.c.entity == entities.c.id
    taken = select(entities.c.name).join(entity_skeletons, of).where(entity_skeletons.c.skeleton.in_(alike)).limit(1)
    check_distinct(member.name, connection.scalar(taken))
    _insert_member(connection, member)
    rows = [{"skeleton": skeleton, "entity": member.id} for skeleton in alike]
    connection.execute(insert(entity_skeletons), rows)


def read_member(connection: Connection, id: str) -> Member:
    """Return the member with this id. KnowledgeNotFoundError when there is none."""
    member = find_member(connection, id=id)
    if member is None:
        raise KnowledgeNotFoundError(f"The registry has no entity {id[:100]!r}.")
    return member


def registered_member(connection: Connection, id: str) -> Member:
    """Return the member with this id, who sends a request. RequestRejectedError when there is none."""
    member = find_member(connection, id=id)
    if member is None:
        raise not_registered(id)
    return member


def _insert_member(connection: Connection, member: Member) -> None:
    row = {"id": member.id, "name": member.name, "registered_at": member.registered_at, "sequence": 0}
    connection.execute(insert(entities), row)
    for key in member.keys:
        insert_key(connection, member.id, key, position=0)


def insert_key(connection: Connection, entity: str, key: Key, *, position: int) -> None:
    """Store a further key of an entity."""
    names = ("public_key", "since", "signature", "hub", "by_hub")
    row = {name: getattr(key, name) for name in names}
    connection.execute(insert(entity_keys), {"entity": entity, "position": position, **row})


def last_sequence(connection: Connection, entity: str) -> int:
    """Return the sequence of the entity's last signed record, 0 before the first."""
    return connection.scalar(select(entities.c.sequence).where(entities.c.id == entity)) or 0


def advance_sequence(connection: Connection, draft: Draft) -> None:
    """Store the sequence of a signed record.

    Raises ConflictError when a record with it, or a later one, is stored, RequestRejectedError when it is too far
    above the last one, or when the record should name the hub.
    """
    if draft.signature is None:
        return
    values = {"next": draft.sequence, "least": draft.sequence - SEQUENCE_STEP, "named": draft.hub is not None}
    if not connection.execute(_ADVANCE, {"entity": draft.entity, **values}).rowcount:
        check_sequence(draft, last_sequence(connection, draft.entity))
        raise _names_no_hub()


def note_hub(connection: Connection, entity: str, hub: str | None) -> None:
    """Note which hub a key is signed for. RequestRejectedError for none, when something was signed for this one."""
    if hub is not None:
        connection.execute(update(entities).where(entities.c.id == entity).values(signs_hub=True))
    elif connection.scalar(select(entities.c.signs_hub).where(entities.c.id == entity)):
        raise _names_no_hub()


def _names_no_hub() -> RequestRejectedError:
    return RequestRejectedError(
        "The signature is for no hub in particular, but this entity has signed for this one with a later version of "
        "KUber; use such a version."
    )
