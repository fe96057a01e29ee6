"""Rows to knowledge, and what of it need not be read again."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, select

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Knowledge
from kuber.domain.task import Task
from kuber.domain.verification import Standing, Verification
from kuber.services.registry_rows import read_architecture
from kuber.services.registry_tables import (
    architectures,
    class_evaluations,
    knowledge_artifacts,
    knowledge_parents,
    quarantines,
    tasks,
    verifications,
)
from kuber.wire import TaskBody, VerificationBody

REMEMBERED = 10_000  # records

Judgement = tuple[str | None, str | None]  # what the verifier found, as JSON, and the operator's reason


class Records:
    """Reads records. Nothing of one ever changes but what was found out about it, and that is read anew each time.

    Remembered is only what a reader saw, as what a writer sees may be undone: then it holds in every process. Safe
    to use from several threads.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Judgement, Knowledge]] = {}  # by row

    def read(self, connection: Connection, chosen: Select[Any]) -> list[tuple[int, Knowledge]]:
        """The rows that `chosen` selects, with their numbers, in its order; the same value for the same record."""
        found = connection.execute(chosen).all()
        judged = _judgements(connection, found)
        known = {row.seq: self._known.get(row.seq) for row in found}
        there = {seq: one[1] for seq, one in known.items() if one is not None and one[0] == judged[seq]}
        lacking = [row for row in found if row.seq not in there]
        read = dict(zip([row.seq for row in lacking], _records(connection, lacking, judged), strict=True))
        if len(self._known) + len(read) > REMEMBERED:
            self._known = {}
        self._known |= {seq: (judged[seq], record) for seq, record in read.items()}
        return [(row.seq, there.get(row.seq) or read[row.seq]) for row in found]


def read_knowledge(connection: Connection, chosen: Select[Any]) -> list[Knowledge]:
    """The records of the knowledge rows that `chosen` selects, in its order."""
    found = connection.execute(chosen).all()
    return _records(connection, found, _judgements(connection, found))


def _judgements(connection: Connection, found: Sequence[Row[Any]]) -> dict[int, Judgement]:
    """What was found out about each of these rows."""
    looked_at = [row.seq for row in found if row.standing is not None]
    findings = _parts(connection, verifications, looked_at) if looked_at else {}
    barred = [row.seq for row in found if row.standing == Standing.QUARANTINED.value]
    orders = _parts(connection, quarantines, barred) if barred else {}
    return {
        row.seq: (
            findings[row.seq][0].body if findings.get(row.seq) else None,
            orders[row.seq][0].reason if orders.get(row.seq) else None,
        )
        for row in found
    }


def _records(connection: Connection, found: Sequence[Row[Any]], judged: dict[int, Judgement]) -> list[Knowledge]:
    if not found:
        return []
    seqs = [row.seq for row in found]
    bodies = {
        "task": _bodies(connection, tasks, {row.task for row in found}),
        "architecture": _bodies(connection, architectures, {row.architecture for row in found}),
    }
    counts = _parts(connection, class_evaluations, seqs)
    artifacts = _parts(connection, knowledge_artifacts, seqs)
    parents = _parts(connection, knowledge_parents, seqs)
    return [
        Knowledge(
            id=row.id,
            entity=row.entity,
            task=_task(bodies["task"][row.task]),
            architecture=read_architecture(bodies["architecture"][row.architecture]),
            artifacts={
                part.kind: Artifact(digest=Digest(part.digest), size=part.size) for part in artifacts[row.seq]
            },
            evaluation=Evaluation(
                test_set=Digest(row.test_set),
                correct=tuple(part.correct for part in counts[row.seq]),
                total=tuple(part.total for part in counts[row.seq]),
            ),
            round=row.round,
            origin=None if row.origin is None else Digest(row.origin),
            parents=tuple(part.parent for part in parents[row.seq]),
            sample_count=row.sample_count,
            class_counts=None if row.class_counts is None else tuple(row.class_counts),
            sequence=row.sequence,
            signature=row.signature,
            published_at=row.published_at,
            verification=_verification(judged[row.seq]),
        )
        for row in found
    ]


def _bodies(connection: Connection, table: Table, seqs: set[int]) -> dict[int, str]:
    query = select(table.c.seq, table.c.body).where(table.c.seq.in_(seqs))
    return {row.seq: row.body for row in connection.execute(query)}


def _parts(connection: Connection, table: Table, seqs: Iterable[int]) -> dict[int, list[Row[Any]]]:
    """The rows of a part of knowledge, in order of its key."""
    parts = defaultdict(list)
    for row in connection.execute(select(table).where(table.c.knowledge.in_(seqs)).order_by(*table.primary_key)):
        parts[row.knowledge].append(row)
    return parts


def _verification(judgement: Judgement) -> Verification | None:
    """What the verifier found; under the operator's quarantine only the evaluation is the verifier's."""
    finding, reason = judgement
    found = None if finding is None else VerificationBody.model_validate_json(finding).value()
    if reason is None:
        return found
    evaluation = None if found is None else found.evaluation
    return Verification(standing=Standing.QUARANTINED, reason=reason, evaluation=evaluation)


@lru_cache(maxsize=256)
def _task(body: str) -> Task:
    return TaskBody.model_validate_json(body).value()
