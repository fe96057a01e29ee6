"""Newest knowledge of each entity on each task, of all and of the sound trained: kept up to date by every writer.

Finding it among all records would take longer with each publication. A record is sound unless it is clearly worse
than the best earlier one of the same origin: `kuber.domain.significance.is_clearly_worse`.
"""

from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, or_, select, update

from kuber.domain.significance import is_clearly_worse
from kuber.domain.verification import Standing
from kuber.services.registry.schema import class_evaluations, knowledge, newest_knowledge

MAX_WALK = 64  # newest records that are looked at for a sound one; else the best of all is the newest
MAX_TASKS = 100  # whose records are compared with a report

_newest, _record = newest_knowledge.c, knowledge.c
_SUBJECT = ("entity", "task_name", "test_set", "trained")
_SAME = [_newest[name] == bindparam(f"of_{name}") for name in _SUBJECT]
_UPDATE = update(newest_knowledge).where(*_SAME)
_UPDATE_BOTH = update(newest_knowledge).where(*_SAME[:-1])  # of all, and of the sound trained ones
_DELETE = delete(newest_knowledge).where(*_SAME)
_INSERT = insert(newest_knowledge)
_SAMPLES = (
    select(func.sum(class_evaluations.c.total))
    .where(class_evaluations.c.knowledge == _record.seq)
    .scalar_subquery()
    .label("samples")
)
_TRAINED_FROM = case((_record.round > 0, _record.origin)).label("origin")  # none of an initial checkpoint
_OF_SUBJECT = (
    select(_record.seq, _TRAINED_FROM, _record.accuracy, _SAMPLES)
    .where(_record.entity == bindparam("of_entity"), _record.task_name == bindparam("of_task_name"))
    .where(_record.test_set == bindparam("of_test_set"), _record.withdrawn_at.is_(None))
    .where(or_(_record.standing.is_(None), _record.standing != Standing.QUARANTINED.value))
)
_VISIBLE = _OF_SUBJECT.order_by(_record.seq.desc()).limit(MAX_WALK)
_TRAINED = _VISIBLE.where(_record.round > 0)
_BEST = _OF_SUBJECT.where(_record.round > 0).order_by(_record.accuracy.desc(), _record.seq).limit(1)
_BEST_EARLIER = _BEST.where(_record.seq < bindparam("before"))
_BEST_EARLIER_OF = {
    True: _BEST_EARLIER.where(_record.origin.is_(None)),
    False: _BEST_EARLIER.where(_record.origin == bindparam("of_origin")),
}
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


def add_newest(connection: Connection, seq: int, row: dict[str, Any], samples: int) -> None:
    """Make a new record the newest of its entity and task; of the sound trained ones, if it is such a one.

    `samples` are those of its evaluation.
    """
    subject = {f"of_{name}": row[name] for name in _SUBJECT[:3]}
    sound = row["round"] > 0 and _is_sound(connection, subject, seq, row["origin"], row["accuracy"], samples)
    both = subject | {"knowledge": seq, "origin": row["origin"]}
    if sound and connection.execute(_UPDATE_BOTH, both).rowcount == 2:
        return
    for trained in (False, True) if sound else (False,):
        _put(connection, row | {"trained": trained}, seq, row["origin"] if row["round"] > 0 else None)


def update_newest(connection: Connection, seq: int) -> None:
    """Update the newest records of this record's entity and task, after one of them became visible or hidden."""
    of_record = select(_record.entity, _record.task_name, _record.test_set).where(_record.seq == seq)
    row = dict(connection.execute(of_record).one()._mapping)
    of_subject = {f"of_{name}": value for name, value in row.items()}
    newest = connection.execute(_VISIBLE, of_subject).first()
    for trained, found in ((False, newest), (True, _newest_sound(connection, of_subject))):
        subject = row | {"trained": trained}
        if found is None:
            connection.execute(_DELETE, {f"of_{name}": subject[name] for name in _SUBJECT})
        else:
            _put(connection, subject, found.seq, found.origin)


def _newest_sound(connection: Connection, subject: dict[str, Any]) -> Any:
    """Return the row of the newest sound trained record; of the best one if none of MAX_WALK is sound."""
    rows = connection.execute(_TRAINED, subject).all()
    for row in rows:
        if _is_sound(connection, subject, row.seq, row.origin, row.accuracy, row.samples):
            return row
    return connection.execute(_BEST, subject).one_or_none() if rows else None


def _is_sound(
    connection: Connection,
    subject: dict[str, Any],
    seq: int,
    origin: str | None,
    accuracy: float,
    samples: int | None,
) -> bool:
    """Return whether a record is not clearly worse than the best earlier one of the same origin."""
    values = subject | {"before": seq} | ({} if origin is None else {"of_origin": origin})
    best = connection.execute(_BEST_EARLIER_OF[origin is None], values).one_or_none()
    if best is None or not best.samples or not samples:
        return True
    then, now = int(best.samples), int(samples)
    return not is_clearly_worse((best.accuracy * then, then), (accuracy * now, now))


def _put(connection: Connection, subject: dict[str, Any], seq: int, origin: str | None) -> None:
    values = {"knowledge": seq, "origin": origin}
    if not connection.execute(_UPDATE, {f"of_{name}": subject[name] for name in _SUBJECT} | values).rowcount:
        connection.execute(_INSERT, {name: subject[name] for name in _SUBJECT} | values)
