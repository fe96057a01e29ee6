"""The newest knowledge of each entity on each task, kept beside the records in the transactions that change it.

To find it in the records takes longer the longer entities publish; here it is a row for each.
"""

from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from kuber.domain.verification import Standing
from kuber.services.registry.schema import knowledge, newest_knowledge

_newest, _row = newest_knowledge.c, knowledge.c
_SUBJECT = ("entity", "task_name", "test_set", "trained")
_THERE = [_newest[name] == bindparam(f"of_{name}") for name in _SUBJECT]
_CHANGE = update(newest_knowledge).where(*_THERE)
_FORGET = delete(newest_knowledge).where(*_THERE)
_ADD = insert(newest_knowledge)
_IN_SIGHT = (
    select(_row.seq, _row.origin)
    .where(_row.entity == bindparam("of_entity"), _row.task_name == bindparam("of_task_name"))
    .where(_row.test_set == bindparam("of_test_set"), _row.withdrawn_at.is_(None))
    .where(or_(_row.standing.is_(None), _row.standing != Standing.QUARANTINED.value))
    .order_by(_row.seq.desc())
    .limit(1)
)
_TRAINED = _IN_SIGHT.where(_row.round > 0)


def add_newest(connection: Connection, seq: int, row: dict[str, Any]) -> None:
    """A new row of knowledge is the newest of its entity and task; a new initial checkpoint hides nothing trained."""
    for trained in (False, True) if row["round"] > 0 else (False,):
        _put(connection, row | {"trained": trained}, seq, row["origin"])


def find_newest(connection: Connection, seq: int) -> None:
    """Find anew what is the newest of the entity and task of this row, which came into sight or went out of it."""
    subject = select(_row.entity, _row.task_name, _row.test_set).where(_row.seq == seq)
    row = dict(connection.execute(subject).one()._mapping)
    for trained, query in ((False, _IN_SIGHT), (True, _TRAINED)):
        of = row | {"trained": trained}
        found = connection.execute(query, {f"of_{name}": value for name, value in row.items()}).one_or_none()
        if found is None:
            connection.execute(_FORGET, {f"of_{name}": of[name] for name in _SUBJECT})
        else:
            _put(connection, of, found.seq, found.origin)


def _put(connection: Connection, subject: dict[str, Any], seq: int, origin: str | None) -> None:
    told = {"knowledge": seq, "origin": origin}
    of = {f"of_{name}": subject[name] for name in _SUBJECT}
    if not connection.execute(_CHANGE, of | told).rowcount:
        connection.execute(_ADD, {name: subject[name] for name in _SUBJECT} | told)
