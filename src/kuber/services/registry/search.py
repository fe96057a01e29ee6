"""The one statement that answers a question for knowledge."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    false,
    func,
    or_,
    select,
    true,
)

from kuber.domain.digest import Digest
from kuber.domain.query import Order, Query
from kuber.domain.verification import Standing
from kuber.services.http import pagination as cursors
from kuber.services.registry.knowledge_reader import with_findings
from kuber.services.registry.schema import INITIAL, class_evaluations, knowledge, newest_knowledge

_NOTHING = Digest("0" * 64)
# In place of what is asked for, in a query that stands for all of its shape.
_MARKS: dict[str, Any] = {
    "task": "",
    "test_set": _NOTHING,
    "min_accuracy": 0.0,
    "exclude_entity": "",
    "origin": _NOTHING,
    "classes": (0,),
}
# What a cursor holds, by order: the rank of the last record of the page before, where there is one, and its number.
_POSITIONS: dict[Order, tuple[type[int] | type[float], ...]] = {
    "accuracy": (float, int),
    "classes": (int, int),
    "newest": (int,),
    "oldest": (int,),
}


def discovery(query: Query) -> tuple[Select[Any], dict[str, Any]]:
    """The statement that answers a query, for `Records.read`, and its values: those of one page and one more."""
    asked: dict[str, Any] = {
        "task": query.task,
        "test_set": query.test_set and query.test_set.hex,
        "min_accuracy": query.min_accuracy,
        "exclude_entity": query.exclude_entity,
        "origin": query.origin and query.origin.hex,
        "classes": query.classes or None,
    }
    values = {name: value for name, value in asked.items() if value is not None} | {"limit": query.limit + 1}
    shape = replace(query, limit=1, **{name: _MARKS[name] for name in values.keys() & _MARKS.keys()})
    if query.cursor is not None:
        position = cursors.decode(query.cursor, query.order, *_POSITIONS[query.order])
        values |= zip(("place", "last"), reversed(position), strict=False)
        shape = replace(shape, cursor="")
    return _statement(shape), values


@lru_cache(maxsize=1024)  # to build one takes longer than to answer it
def _statement(query: Query) -> Select[Any]:
    """For all queries that differ from this one in the values of what they ask about."""
    row = knowledge.c
    subject: Any = newest_knowledge.c if query.latest else row
    seq: ColumnElement[int] = subject.knowledge if query.latest else row.seq
    told = select(seq.label("seq")).limit(bindparam("limit", type_=Integer))
    if query.latest:
        # A new initial checkpoint hides nothing that was trained.
        told = told.where(subject.trained == (true() if query.initial is False else false()))
        if _needs_records(query):
            told = told.join(knowledge, row.seq == seq)
    else:
        told = told.where(row.withdrawn_at.is_(None))
    wanted = "" if query.pending else query.standing and query.standing.value
    if query.latest and wanted is not None:
        # Beside what is newest a record is found by its number, and never by an index on the standing of all.
        told = told.where(func.coalesce(row.standing, "") == wanted)
    elif wanted is not None:
        told = told.where(row.standing == wanted if wanted else row.standing.is_(None))
    elif not query.latest:  # what the hub quarantined is found only by those who ask for it
        told = told.where(or_(row.standing.is_(None), row.standing != Standing.QUARANTINED.value))
    if query.task is not None:
        told = told.where(subject.task_name == bindparam("task"))
    if query.test_set is not None:
        told = told.where(subject.test_set == bindparam("test_set"))
    if query.min_accuracy is not None:
        told = told.where(row.accuracy >= bindparam("min_accuracy"))
    if query.exclude_entity is not None:
        told = told.where(subject.entity != bindparam("exclude_entity"))
    if query.initial:
        told = told.where(INITIAL)
    elif query.initial is False and not query.latest:
        told = told.where(row.round > 0)
    if query.origin is not None:
        told = told.where(subject.origin == bindparam("origin"))
    return with_findings(_in_order(told, query, seq))


def _in_order(told: Select[Any], query: Query, seq: ColumnElement[int]) -> Select[Any]:
    """Best, newest or oldest first, from the place on that the cursor names."""
    last: BindParameter[Any] = bindparam("last")
    place: BindParameter[Any] = bindparam("place")
    if query.order == "newest":
        return (told if query.cursor is None else told.where(seq < place)).order_by(seq.desc())
    if query.order == "oldest":
        return (told if query.cursor is None else told.where(seq > place)).order_by(seq)
    rank: ColumnElement[Any] = knowledge.c.accuracy if query.order == "accuracy" else _recall_rank(seq)
    if query.cursor is not None:
        # The first condition bounds the walk over an index, the second leaves out what was on the page before.
        told = told.where(and_(rank <= last, or_(rank < last, seq > place)))
    return told.order_by(rank.desc(), seq)


def _needs_records(query: Query) -> bool:
    """Whether it asks for more than what is kept of the newest, all of which is in sight.

    A join costs, and where a database knows little of its tables yet, it may read one of them for each row of the
    other.
    """
    looked_at = query.pending or query.standing is not None
    return looked_at or query.min_accuracy is not None or bool(query.initial) or query.order == "accuracy"


def _recall_rank(seq: ColumnElement[int]) -> ScalarSelect[int]:
    """As `kuber.domain.ranking.recall_rank`, of the record with this number."""
    part = class_evaluations.c
    summed = select(func.coalesce(func.sum(part.recall), 0))
    return summed.where(part.knowledge == seq, part.label.in_(bindparam("classes", expanding=True))).scalar_subquery()
