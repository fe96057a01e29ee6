"""The one statement that answers a question for knowledge."""

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, false, func, or_, select, true

from kuber.domain.query import Query
from kuber.domain.verification import Standing
from kuber.services import cursor as cursors
from kuber.services.registry_tables import INITIAL, class_evaluations, knowledge, newest_knowledge


def discovery(query: Query) -> Select[Any]:
    """The statement that answers a query: the rows of knowledge of one page and one more."""
    row = knowledge.c
    told = select(knowledge).where(row.withdrawn_at.is_(None), _in_sight(query)).limit(query.limit + 1)
    subject: Any = row
    seq: ColumnElement[int] = row.seq
    if query.latest:
        subject = newest_knowledge.c
        seq = subject.knowledge
        # A new initial checkpoint hides nothing that was trained.
        trained = subject.trained == (true() if query.initial is False else false())
        told = told.join(newest_knowledge, subject.knowledge == row.seq).where(trained)
    if query.task is not None:
        told = told.where(subject.task_name == query.task)
    if query.test_set is not None:
        told = told.where(subject.test_set == query.test_set.hex)
    if query.min_accuracy is not None:
        told = told.where(row.accuracy >= query.min_accuracy)
    if query.exclude_entity is not None:
        told = told.where(subject.entity != query.exclude_entity)
    if query.initial is not None:
        told = told.where(INITIAL if query.initial else row.round > 0)
    if query.origin is not None:
        told = told.where(subject.origin == query.origin.hex)
    if query.order == "classes":
        rank = _recall_rank(query)
        if query.cursor is not None:
            last, place = cursors.decode(query.cursor, "classes", int, int)
            told = told.where(or_(rank < last, and_(rank == last, row.seq > place)))
        return told.order_by(rank.desc(), row.seq)
    if query.order == "newest":
        if query.cursor is not None:
            (place,) = cursors.decode(query.cursor, "newest", int)
            told = told.where(seq < place)
        return told.order_by(seq.desc())
    if query.order == "oldest":
        if query.cursor is not None:
            (place,) = cursors.decode(query.cursor, "oldest", int)
            told = told.where(seq > place)
        return told.order_by(seq)
    if query.cursor is not None:
        accuracy, place = cursors.decode(query.cursor, "accuracy", float, int)
        # The first condition bounds the walk over the index, the second leaves out what was on the page before.
        told = told.where(and_(row.accuracy <= accuracy, or_(row.accuracy < accuracy, row.seq > place)))
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
    summed = select(func.coalesce(func.sum(part.recall), 0))
    return summed.where(part.knowledge == knowledge.c.seq, part.label.in_(query.classes)).scalar_subquery()
