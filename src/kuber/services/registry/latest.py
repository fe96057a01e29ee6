"""Newest knowledge of each entity on each task: one row for each pair, kept up to date by every writer.

Finding it among all records would take longer with each publication.
"""

from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from kuber.domain.verification import Standing
from kuber.services.registry.schema import class_evaluations, knowledge, newest_knowledge

MAX_TASKS = 100  # whose records are compared with a report

_newest, _record = newest_knowledge.c, knowledge.c
_SUBJECT = ("entity", "task_name", "test_set", "trained")
_SAME = [_newest[name] == bindparam(f"of_{name}") for name in _SUBJECT]
_UPDATE = update(newest_knowledge).where(*_SAME)
_UPDATE_BOTH = update(newest_knowledge).where(*_SAME[:-1])  # of all, and of the trained ones
_DELETE = delete(newest_knowledge).where(*_SAME)
_INSERT = insert(newest_knowledge)
_VISIBLE = (
    select(_record.seq, _record.origin)
    .where(_record.entity == bindparam("of_entity"), _record.task_name == bindparam("of_task_name"))
    .where(_record.test_set == bindparam("of_test_set"), _record.withdrawn_at.is_(None))
    .where(or_(_record.standing.is_(None), _record.standing != Standing.QUARANTINED.value))
    .order_by(_record.seq.desc())
    .limit(1)
)
_TRAINED = _VISIBLE.where(_record.round > 0)
_LAST_LABEL = (
    select(func.max(class_evaluations.c.label))
    .where(class_evaluations.c.knowledge == _newest.knowledge)
    .scalar_subquery()
)
_CLASSES = (
    select(_LAST_LABEL).where(_newest.entity == bindparam("entity"), _newest.trained.is_(False)).limit(MAX_TASKS)
)


def published_classes(connection: Connection, entity: str) -> set[int]:
    """Return the numbers of classes of the tasks on which this entity has published.

    Without records, and with records on too many tasks or sets to look at, empty.
    """
    found = [last + 1 for last in connection.scalars(_CLASSES, {"entity": entity})]
    return set(found) if len(found) < MAX_TASKS else set()


def add_newest(connection: Connection, seq: int, row: dict[str, Any]) -> None:
    """Make a new record the newest of its entity and task; an initial checkpoint does not replace a trained one."""
    values = {f"of_{name}": row[name] for name in _SUBJECT if name != "trained"} | {"knowledge": seq}
    if row["round"] > 0 and connection.execute(_UPDATE_BOTH, values | {"origin": row["origin"]}).rowcount == 2:
        return
    for trained in (False, True) if row["round"] > 0 else (False,):
        _put(connection, row | {"trained": trained}, seq, row["origin"])


def update_newest(connection: Connection, seq: int) -> None:
    """Update the newest record of this record's entity and task, after this record became visible or hidden."""
    of_record = select(_record.entity, _record.task_name, _record.test_set).where(_record.seq == seq)
    row = dict(connection.execute(of_record).one()._mapping)
    for trained, query in ((False, _VISIBLE), (True, _TRAINED)):
        subject = row | {"trained": trained}
        found = connection.execute(query, {f"of_{name}": value for name, value in row.items()}).one_or_none()
        if found is None:
            connection.execute(_DELETE, {f"of_{name}": subject[name] for name in _SUBJECT})
        else:
            _put(connection, subject, found.seq, found.origin)


def _put(connection: Connection, subject: dict[str, Any], seq: int, origin: str | None) -> None:
    values = {"knowledge": seq, "origin": origin}
    if not connection.execute(_UPDATE, {f"of_{name}": subject[name] for name in _SUBJECT} | values).rowcount:
        connection.execute(_INSERT, {name: subject[name] for name in _SUBJECT} | values)
