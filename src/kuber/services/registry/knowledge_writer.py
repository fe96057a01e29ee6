"""Write knowledge to rows."""

from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, select

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.ranking import recalls
from kuber.domain.record_memory import task_memory
from kuber.domain.task import Task
from kuber.services.db.cache import SizedCache
from kuber.services.registry.architecture_pins import ArchitecturePins
from kuber.services.registry.latest import add_newest
from kuber.services.registry.schema import class_evaluations, knowledge, knowledge_artifacts, knowledge_parents, tasks
from kuber.wire.base import canonical
from kuber.wire.registry import EvaluationSetBody, TaskBody

CACHED = 32 << 20  # bytes of tasks
_TASK_ROW = 300  # bytes of a cached row number

_task_bodies: SizedCache[Task, tuple[str, str]] = SizedCache(CACHED)

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_TASK = select(tasks.c.seq).where(tasks.c.digest == bindparam("digest"))
_INSERT = {
    table: insert(table) for table in (tasks, knowledge, class_evaluations, knowledge_artifacts, knowledge_parents)
}


def insert_knowledge(
    connection: Connection, interned: "InternedRows", record: Knowledge, *, key: str, draft: str
) -> int:
    """Store a record; return its row number. ConflictError when its architecture is pinned to another manifest."""
    row = {
        "id": record.id,
        "entity": record.entity,
        "task": interned.task(connection, record.task),
        "task_name": record.task.name,
        "test_set": record.evaluation.test_set.hex,
        "architecture": interned.architectures.row(connection, record.architecture),
        "accuracy": record.evaluation.accuracy,
        "round": record.round,
        "origin": None if record.origin is None else record.origin.hex,
        "sample_count": record.sample_count,
        "class_counts": None if record.class_counts is None else list(record.class_counts),
        "published_at": record.published_at,
        "key": key,
        "sequence": record.sequence,
        "signature": record.signature,
        "draft": draft,
        "evaluation_set": stored_set(record),
        "copy_of": record.copy_of,
        "hub": record.hub,
        "prior": record.prior,
        "prior_signature": record.prior_signature,
    }
    seq = _insert(connection, knowledge, row)
    evaluation = record.evaluation
    counts = zip(evaluation.correct, evaluation.total, recalls(evaluation), strict=True)
    parts: dict[Table, list[dict[str, Any]]] = {
        class_evaluations: [
            {"knowledge": seq, "label": label, "correct": correct, "total": total, "recall": recall}
            for label, (correct, total, recall) in enumerate(counts)
        ],
        knowledge_artifacts: [
            {"knowledge": seq, "kind": kind, "digest": artifact.digest.hex, "size": artifact.size}
            for kind, artifact in record.artifacts.items()
        ],
        knowledge_parents: [
            {"knowledge": seq, "position": position, "parent": parent}
            for position, parent in enumerate(record.parents)
        ],
    }
    for table, values in parts.items():
        if values:
            connection.execute(_INSERT[table], values)
    add_newest(connection, seq, row, sum(evaluation.total))
    return seq


def stored_set(record: Knowledge) -> dict[str, Any] | None:
    """Return the evaluation set of a record as JSON; None if it has none."""
    found = record.evaluation_set
    return None if found is None else EvaluationSetBody.of(found).model_dump(mode="json")


class InternedRows:
    """Row numbers of tasks and architectures, which many records share.

    Only rows that a reader saw are cached: those of a writer may be rolled back.
    """

    def __init__(self, *, shared: bool) -> None:
        """Take note whether other processes share the database."""
        self._tasks: SizedCache[str, int] = SizedCache(1 << 20)  # digest -> row number
        self.architectures = ArchitecturePins(shared=shared)

    def learn(self, connection: Connection, draft: Draft) -> None:
        """Cache the rows of a draft. ConflictError when its architecture is pinned to another manifest."""
        self.architectures.learn(connection, draft.architecture)
        digest = _task_body(draft.task)[0]
        if self._tasks.get(digest) is None and (seq := connection.scalar(_TASK, {"digest": digest})) is not None:
            self._tasks.put(digest, seq, _TASK_ROW)

    def task(self, connection: Connection, task: Task) -> int:
        """Return the row number of a task; insert a row if it has none."""
        digest, body = _task_body(task)
        seq: int | None = self._tasks.get(digest) or connection.scalar(_TASK, {"digest": digest})
        if seq is not None:
            return seq
        row = {"digest": digest, "name": task.name, "body": body}
        return _insert(connection, tasks, row)


def _task_body(task: Task) -> tuple[str, str]:
    """Return the digest of a task's canonical body, as hex digits, and the body."""
    found = _task_bodies.get(task)
    if found is None:
        body = canonical(TaskBody.of(task))
        found = Digest.of(body).hex, body.decode()
        _task_bodies.put(task, found, task_memory(task) + 2 * len(body))
    return found


def _insert(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    key = connection.execute(_INSERT[table], row).inserted_primary_key
    assert key is not None
    seq: int = key[0]
    return seq
