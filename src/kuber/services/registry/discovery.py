"""The SELECT statement of a discover request."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    false,
    func,
    literal,
    or_,
    select,
    true,
)

from kuber.domain.digest import Digest
from kuber.domain.query import Order, Query
from kuber.domain.verification import Standing
from kuber.services.http import pagination as cursors
from kuber.services.registry.knowledge_reader import with_judgements
from kuber.services.registry.schema import INITIAL, class_evaluations, knowledge, newest_knowledge

_ANY_DIGEST = Digest("0" * 64)
# Values of the query that stands for all queries of the same shape.
_PLACEHOLDERS: dict[str, Any] = {
    "task": "",
    "test_set": _ANY_DIGEST,
    "min_accuracy": 0.0,
    "exclude_entity": "",
    "origin": _ANY_DIGEST,
    "classes": (0,),
}
# Types in a cursor, by order: rank, where the order has ranks, and number of the last record of the previous page.
_POSITIONS: dict[Order, tuple[type[int] | type[float], ...]] = {
    "accuracy": (float, int),
    "classes": (int, int),
    "newest": (int,),
    "oldest": (int,),
}


_ACCURACY = select(knowledge.c.accuracy).where(knowledge.c.seq == bindparam("seq"))


def discover_statement(query: Query) -> tuple[Select[Any], dict[str, Any]]:
    """Return the statement of a query, for `KnowledgeReader.read`, and its values: one page and one record more."""
    filters: dict[str, Any] = {
        "task": query.task,
        "test_set": query.test_set and query.test_set.hex,
        "min_accuracy": query.min_accuracy,
        "exclude_entity": query.exclude_entity,
        "origin": query.origin and query.origin.hex,
        "classes": query.classes or None,
    }
    values = {name: value for name, value in filters.items() if value is not None} | {"limit": query.limit + 1}
    shape = replace(query, limit=1, **{name: _PLACEHOLDERS[name] for name in values.keys() & _PLACEHOLDERS.keys()})
    if query.cursor is not None:
        position = cursors.decode(query.cursor, query.order, *_POSITIONS[query.order])
        values |= zip(("last_seq", "last_rank"), reversed(position), strict=False)
        shape = replace(shape, cursor="")
    return _statement(shape), values


def read_rank(connection: Connection, query: Query, seq: int) -> float | int:
    """Return the rank of the record with this row number, in the order `accuracy` or `classes` of the query."""
    if query.order == "accuracy":
        return float(connection.scalar(_ACCURACY, {"seq": seq}) or 0.0)
    return int(connection.scalar(select(_recall_rank(literal(seq))), {"classes": query.classes}) or 0)


@lru_cache(maxsize=1024)  # building one takes longer than running it
def _statement(query: Query) -> Select[Any]:
    """Build the statement of all queries of this shape: those that differ from it only in the values of filters."""
    row = knowledge.c
    subject: Any = newest_knowledge.c if query.latest else row
    seq: ColumnElement[int] = subject.knowledge if query.latest else row.seq
    statement = select(seq.label("seq")).limit(bindparam("limit", type_=Integer))
    if query.latest:
        # A new initial checkpoint hides no sound record.
        statement = statement.where(subject.trained == (true() if query.only_sound else false()))
        if _needs_records(query):
            statement = statement.join(knowledge, row.seq == seq)
    else:
        statement = statement.where(row.withdrawn_at.is_(None))
    standing = "" if query.pending else query.standing and query.standing.value
    if query.latest and standing is not None:
        # The newest records are found by number, never by an index on the standing of all records.
        statement = statement.where(func.coalesce(row.standing, "") == standing)
    elif standing is not None:
        statement = statement.where(row.standing == standing if standing else row.standing.is_(None))
    elif not query.latest:  # quarantined records are found only by their standing
        statement = statement.where(or_(row.standing.is_(None), row.standing != Standing.QUARANTINED.value))
    if query.task is not None:
        statement = statement.where(subject.task_name == bindparam("task"))
    if query.test_set is not None:
        statement = statement.where(subject.test_set == bindparam("test_set"))
    if query.min_accuracy is not None:
        statement = statement.where(row.accuracy >= bindparam("min_accuracy"))
    if query.exclude_entity is not None:
        statement = statement.where(subject.entity != bindparam("exclude_entity"))
    if query.initial:
        statement = statement.where(INITIAL)
    elif query.initial is False and not query.latest:
        statement = statement.where(row.round > 0)
    if query.origin is not None:
        # Among the newest, initial checkpoints have no origin.
        origin: Any = subject.origin if query.initial is False else row.origin
        statement = statement.where(origin == bindparam("origin"))
    return with_judgements(_in_order(statement, query, seq))


def _in_order(statement: Select[Any], query: Query, seq: ColumnElement[int]) -> Select[Any]:
    """Order the statement best, newest or oldest first, from the position of the cursor on."""
    last_seq: BindParameter[Any] = bindparam("last_seq")
    last_rank: BindParameter[Any] = bindparam("last_rank")
    if query.order == "newest":
        return (statement if query.cursor is None else statement.where(seq < last_seq)).order_by(seq.desc())
    if query.order == "oldest":
        return (statement if query.cursor is None else statement.where(seq > last_seq)).order_by(seq)
    rank: ColumnElement[Any] = knowledge.c.accuracy if query.order == "accuracy" else _recall_rank(seq)
    if query.cursor is not None:
        # The first condition bounds the index scan, the second leaves out the previous page.
        statement = statement.where(and_(rank <= last_rank, or_(rank < last_rank, seq > last_seq)))
    return statement.order_by(rank.desc(), seq)


def _needs_records(query: Query) -> bool:
    """Return whether a query for the newest records needs more than their own table, which has only visible ones.

    A join costs, and a database with few statistics may scan one table for each row of the other.
    """
    judged = query.pending or query.standing is not None
    judged |= query.origin is not None and query.initial is not False
    return judged or query.min_accuracy is not None or bool(query.initial) or query.order == "accuracy"


def _recall_rank(seq: ColumnElement[int]) -> ScalarSelect[int]:
    """Return the subquery for `kuber.domain.ranking.recall_rank` of the record with this number."""
    part = class_evaluations.c
    summed = select(func.coalesce(func.sum(part.recall), 0))
    return summed.where(part.knowledge == seq, part.label.in_(bindparam("classes", expanding=True))).scalar_subquery()
