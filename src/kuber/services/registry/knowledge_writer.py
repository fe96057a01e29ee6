"""Write knowledge to rows."""

import json
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, bindparam, insert, select

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture, Draft, Knowledge, Manifest
from kuber.domain.publication_checks import check_pinned
from kuber.domain.ranking import recalls
from kuber.domain.task import Task
from kuber.services.registry.latest import add_newest
from kuber.services.registry.schema import (
    architectures,
    class_evaluations,
    knowledge,
    knowledge_artifacts,
    knowledge_parents,
    tasks,
)
from kuber.wire.base import canonical
from kuber.wire.registry import ArchitectureBody, EvaluationSetBody, TaskBody

CACHED = 1000  # tasks, and as many architectures

V = TypeVar("V")

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_TASK = select(tasks.c.seq).where(tasks.c.digest == bindparam("digest"))
_PINNED = select(architectures.c.seq, architectures.c.body).where(architectures.c.pin == bindparam("pin"))
_INSERT = {
    table: insert(table)
    for table in (tasks, architectures, knowledge, class_evaluations, knowledge_artifacts, knowledge_parents)
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
        "architecture": interned.architecture(connection, record.architecture),
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
    }
    seq = _insert(connection, knowledge, row)
    add_newest(connection, seq, row)
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
    return seq


def stored_set(record: Knowledge) -> dict[str, Any] | None:
    """Return the evaluation set of a record as JSON; None if it has none."""
    found = record.evaluation_set
    return None if found is None else EvaluationSetBody.of(found).model_dump(mode="json")


class InternedRows:
    """Row numbers of tasks and architectures, which many records share and which never change once committed.

    Only rows that a reader saw are cached: those of a writer may be rolled back.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, int] = {}  # digest -> row number
        self._architectures: dict[str, tuple[int, Manifest]] = {}  # pin -> row number and manifest

    def learn(self, connection: Connection, draft: Draft) -> None:
        """Cache the rows of a draft. ConflictError when its architecture is pinned to another manifest."""
        digest, pin = _task_body(draft.task)[0], _pin(draft.architecture)
        if pin not in self._architectures and (pinned := _pinned(connection, pin)) is not None:
            _cache(self._architectures, pin, pinned)
        if pin in self._architectures:
            check_pinned(draft.architecture, self._architectures[pin][1])
        if digest not in self._tasks and (seq := connection.scalar(_TASK, {"digest": digest})) is not None:
            _cache(self._tasks, digest, seq)

    def task(self, connection: Connection, task: Task) -> int:
        """Return the row number of a task; insert a row if it has none."""
        digest, body = _task_body(task)
        seq: int | None = self._tasks.get(digest) or connection.scalar(_TASK, {"digest": digest})
        if seq is not None:
            return seq
        row = {"digest": digest, "name": task.name, "body": body}
        return _insert(connection, tasks, row)

    def architecture(self, connection: Connection, architecture: Architecture) -> int:
        """Return the row number of an architecture; insert a row if it has none. ConflictError as `learn`."""
        pin = _pin(architecture)
        pinned = self._architectures.get(pin) or _pinned(connection, pin)
        if pinned is not None:
            check_pinned(architecture, pinned[1])
            return pinned[0]
        row = {
            "name": architecture.name,
            "arguments": _arguments(architecture),
            "pin": pin,
            "body": canonical(ArchitectureBody.of(architecture)).decode(),
        }
        return _insert(connection, architectures, row)


def _cache(cache: dict[str, V], key: str, value: V) -> None:
    if len(cache) >= CACHED:
        cache.clear()
    cache[key] = value


def _pinned(connection: Connection, pin: str) -> tuple[int, Manifest] | None:
    row = connection.execute(_PINNED, {"pin": pin}).one_or_none()
    return None if row is None else (row.seq, read_architecture(row.body).manifest)


@lru_cache(maxsize=256)
def _task_body(task: Task) -> tuple[str, str]:
    """Return the digest of a task's canonical body, as hex digits, and the body."""
    body = canonical(TaskBody.of(task))
    return Digest.of(body).hex, body.decode()


def _arguments(architecture: Architecture) -> str:
    return json.dumps(dict(architecture.arguments), sort_keys=True, separators=(",", ":"))


def _pin(architecture: Architecture) -> str:
    parts = json.dumps(architecture.name).encode(), b"\n", _arguments(architecture).encode()
    # A record without a manifest does not pin the tensors of the records that have one.
    return Digest.of(*parts, b"" if architecture.manifest else b"\nno tensors").hex


def _insert(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    key = connection.execute(_INSERT[table], row).inserted_primary_key
    assert key is not None
    seq: int = key[0]
    return seq


@lru_cache(maxsize=256)
def read_architecture(body: str) -> Architecture:
    return ArchitectureBody.model_validate_json(body).value()
