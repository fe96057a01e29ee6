"""The one statement that answers a question for knowledge."""

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, exists, func, or_, select

from kuber.domain.query import RECALL_UNIT, Query
from kuber.domain.verification import Standing
from kuber.services import cursor as cursors
from kuber.services.registry_tables import class_evaluations, knowledge


def discovery(query: Query) -> Select[Any]:
    """The statement that answers a query: the rows of knowledge of one page and one more."""
    row = knowledge.c
    told = select(knowledge).where(row.withdrawn_at.is_(None), _in_sight(query)).limit(query.limit + 1)
    if query.task is not None:
        told = told.where(row.task_name == query.task)
    if query.test_set is not None:
        told = told.where(row.test_set == query.test_set.hex)
    if query.min_accuracy is not None:
        told = told.where(row.accuracy >= query.min_accuracy)
    if query.exclude_entity is not None:
        told = told.where(row.entity != query.exclude_entity)
    if query.initial is not None:
        told = told.where(row.round == 0 if query.initial else row.round > 0)
    if query.origin is not None:
        told = told.where(row.origin == query.origin.hex)
    if query.latest:
        newer = knowledge.alias("newer").c
        same = [
            newer.withdrawn_at.is_(None),
            or_(newer.standing.is_(None), newer.standing != Standing.QUARANTINED.value),
            newer.entity == row.entity,
            newer.task_name == row.task_name,
            newer.test_set == row.test_set,
        ]
        if query.initial is False:  # a new initial checkpoint hides nothing that was trained
            same.append(newer.round > 0)
        told = told.where(~exists().where(*same, newer.seq > row.seq))
    if query.order == "classes":
        rank = _recall_rank(query)
        if query.cursor is not None:
            last, seq = cursors.decode(query.cursor, "classes", int, int)
            told = told.where(or_(rank < last, and_(rank == last, row.seq > seq)))
        return told.order_by(rank.desc(), row.seq)
    if query.order == "newest":
        if query.cursor is not None:
            (seq,) = cursors.decode(query.cursor, "newest", int)
            told = told.where(row.seq < seq)
        return told.order_by(row.seq.desc())
    if query.order == "oldest":
        if query.cursor is not None:
            (seq,) = cursors.decode(query.cursor, "oldest", int)
            told = told.where(row.seq > seq)
        return told.order_by(row.seq)
    if query.cursor is not None:
        accuracy, seq = cursors.decode(query.cursor, "accuracy", float, int)
        # The first condition bounds the walk over the index, the second leaves out what was on the page before.
        told = told.where(and_(row.accuracy <= accuracy, or_(row.accuracy < accuracy, row.seq > seq)))
    return told.order_by(row.accuracy.desc(), row.seq)


def _in_sight(query: Query) -> ColumnElement[bool]:
    """What the hub quarantined is found only by those who ask for it."""
    standing = knowledge.c.standing
    if query.pending:
        return standing.is_(None)
    if query.standing is not None:
        return standing == query.standing.value
    return or_(standing.is_(None), standing != Standing.QUARANTINED.value)


def _recall_rank(query: Query) -> ScalarSelect[int]:
    """As `kuber.domain.ranking.recall_rank`, of a row of knowledge."""
    part = class_evaluations.c
    summed = func.coalesce(func.sum(func.coalesce(part.verified, part.correct) * RECALL_UNIT // part.total), 0)
    of_row = select(summed).where(part.knowledge == knowledge.c.seq, part.label.in_(query.classes), part.total > 0)
    return of_row.scalar_subquery()
