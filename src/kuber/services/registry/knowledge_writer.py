"""Knowledge to rows."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, bindparam, insert, select

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture, Draft, Knowledge, TensorSpec
from kuber.domain.ranking import recalls
from kuber.domain.task import Task
from kuber.errors import ConflictError
from kuber.services.registry.latest import add_newest
from kuber.services.registry.schema import (
    architectures,
    class_evaluations,
    knowledge,
    knowledge_artifacts,
    knowledge_parents,
    tasks,
)
from kuber.wire import ArchitectureBody, TaskBody, canonical

REMEMBERED = 1000  # tasks, and architectures

V = TypeVar("V")

# Built once: SQLAlchemy takes longer to build a statement than to run it.
_TASK = select(tasks.c.seq).where(tasks.c.digest == bindparam("digest"))
_PINNED = select(architectures.c.seq, architectures.c.body).where(architectures.c.pin == bindparam("pin"))
_INSERT = {
    table: insert(table)
    for table in (tasks, architectures, knowledge, class_evaluations, knowledge_artifacts, knowledge_parents)
}


def insert_knowledge(
    connection: Connection, shared: "InternedRows", record: Knowledge, *, key: str, draft: str
) -> int:
    """Store a record and its parts; its number. ConflictError when its architecture is pinned to another manifest."""
    row = {
        "id": record.id,
        "entity": record.entity,
        "task": shared.task(connection, record.task),
        "task_name": record.task.name,
        "test_set": record.evaluation.test_set.hex,
        "architecture": shared.architecture(connection, record.architecture),
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


class InternedRows:
    """Tasks and architectures by their rows, which many records name and which never change once they are committed.

    Remembered is only what a reader saw: what the writer sees may be undone.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, int] = {}  # digest -> row
        self._architectures: dict[str, tuple[int, Mapping[str, TensorSpec]]] = {}  # pin -> row and manifest

    def learn(self, connection: Connection, draft: Draft) -> None:
        """Read and remember what a draft names. ConflictError when its architecture is pinned to another manifest."""
        digest, pin = _written(draft.task)[0], _pin(draft.architecture)
        if pin not in self._architectures and (pinned := _pinned(connection, pin)) is not None:
            _keep(self._architectures, pin, pinned)
        if pin in self._architectures:
            _check_manifest(draft.architecture, self._architectures[pin][1])
        if digest not in self._tasks and (seq := connection.scalar(_TASK, {"digest": digest})) is not None:
            _keep(self._tasks, digest, seq)

    def task(self, connection: Connection, task: Task) -> int:
        """The row of a task; a new one where it has none."""
        digest, body = _written(task)
        seq: int | None = self._tasks.get(digest) or connection.scalar(_TASK, {"digest": digest})
        if seq is not None:
            return seq
        row = {"digest": digest, "name": task.name, "body": body}
        return _insert(connection, tasks, row)

    def architecture(self, connection: Connection, architecture: Architecture) -> int:
        """The row of an architecture; a new one where it has none. ConflictError as `learn`."""
        pin = _pin(architecture)
        pinned = self._architectures.get(pin) or _pinned(connection, pin)
        if pinned is not None:
            _check_manifest(architecture, pinned[1])
            return pinned[0]
        row = {
            "name": architecture.name,
            "arguments": _arguments(architecture),
            "pin": pin,
            "body": canonical(ArchitectureBody.of(architecture)).decode(),
        }
        return _insert(connection, architectures, row)


def _keep(known: dict[str, V], key: str, value: V) -> None:
    if len(known) >= REMEMBERED:
        known.clear()
    known[key] = value


def _pinned(connection: Connection, pin: str) -> tuple[int, Mapping[str, TensorSpec]] | None:
    row = connection.execute(_PINNED, {"pin": pin}).one_or_none()
    return None if row is None else (row.seq, read_architecture(row.body).manifest)


def _check_manifest(architecture: Architecture, manifest: Mapping[str, TensorSpec]) -> None:
    if architecture.manifest != manifest:
        raise ConflictError(
            f"The architecture {architecture.name!r} with these arguments is pinned to other tensors by its first "
            "publisher; publish yours under another name."
        )


@lru_cache(maxsize=256)
def _written(task: Task) -> tuple[str, str]:
    """The digest of a task's canonical body, as hex digits, and that body."""
    body = canonical(TaskBody.of(task))
    return Digest.of(body).hex, body.decode()


def _arguments(architecture: Architecture) -> str:
    return json.dumps(dict(architecture.arguments), sort_keys=True, separators=(",", ":"))


def _pin(architecture: Architecture) -> str:
    told = json.dumps(architecture.name).encode(), b"\n", _arguments(architecture).encode()
    # Who tells of no tensors keeps nobody from telling which they are.
    return Digest.of(*told, b"" if architecture.manifest else b"\nno tensors").hex


def _insert(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    key = connection.execute(_INSERT[table], row).inserted_primary_key
    assert key is not None
    seq: int = key[0]
    return seq


@lru_cache(maxsize=256)
def read_architecture(body: str) -> Architecture:
    return ArchitectureBody.model_validate_json(body).value()
