"""Read knowledge from rows, with a cache."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, bindparam, select

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Knowledge
from kuber.domain.task import Task
from kuber.domain.verification import Standing, Verification
from kuber.services.registry.architecture_pins import read_architecture
from kuber.services.registry.schema import (
    architectures,
    class_evaluations,
    knowledge,
    knowledge_artifacts,
    knowledge_parents,
    quarantines,
    tasks,
    verifications,
)
from kuber.wire.registry import EvaluationSetBody, TaskBody, VerificationBody

CACHED = 40_000  # records; about 5 KB each

Judgement = tuple[str | None, str | None]  # the verification as JSON, and the operator's reason for a quarantine


class KnowledgeReader:
    """Reads and caches records. Safe to use from several threads.

    Only judgements of a record ever change, and they are read each time. Only committed records are cached, since a
    writer's may be rolled back; so the cache holds also when other processes write.
    """

    def __init__(self) -> None:
        self._recent: dict[int, tuple[Judgement, Knowledge]] = {}  # by row number
        self._older: dict[int, tuple[Judgement, Knowledge]] = {}  # the previous `_recent`

    def keep(self, seq: int, record: Knowledge) -> None:
        """Cache a new record, which is committed and not judged yet."""
        self._cache({seq: ((None, None), record)})

    def read(
        self, connection: Connection, chosen: Select[Any], values: Mapping[str, Any]
    ) -> list[tuple[int, Knowledge]]:
        """Return the records that `chosen`, made by `with_judgements`, selects, in its order with their row numbers.

        An unchanged record is the same object each time.
        """
        judgements = _judgements(connection, chosen, values)
        records = {}
        for seq, judgement in judgements.items():
            cached = self._recent.get(seq) or self._older.get(seq)
            if cached is not None and cached[0] == judgement:
                records[seq] = cached[1]
        missing = {seq: judgement for seq, judgement in judgements.items() if seq not in records}
        records |= _records(connection, missing)
        self._cache({seq: (judgements[seq], record) for seq, record in records.items()})
        return [(seq, records[seq]) for seq in judgements]

    def _cache(self, records: dict[int, tuple[Judgement, Knowledge]]) -> None:
        """Cache records; when half of the room is used, drop those that were not read since the last time."""
        if len(self._recent) + len(records) > CACHED // 2:
            self._older, self._recent = self._recent, {}
        self._recent.update(records)  # in place: another thread may have replaced it meanwhile


def with_judgements(chosen: Select[Any]) -> Select[Any]:
    """Return the statement that also selects the judgements of the records that `chosen` selects by `seq`.

    One statement selects all that can change; later statements may see a later state.
    """
    seq = chosen.selected_columns["seq"]
    verification = select(verifications.c.body).where(verifications.c.knowledge == seq).scalar_subquery()
    reason = select(quarantines.c.reason).where(quarantines.c.knowledge == seq).scalar_subquery()
    return chosen.add_columns(verification.label("verification"), reason.label("reason"))


BY_ID = with_judgements(select(knowledge.c.seq).where(knowledge.c.id == bindparam("id")))
_BY_SEQ = with_judgements(select(knowledge.c.seq).where(knowledge.c.seq == bindparam("seq")))


def read_record(connection: Connection, seq: int) -> Knowledge:
    """Return the record with this row number."""
    return _records(connection, _judgements(connection, _BY_SEQ, {"seq": seq}))[seq]


def _judgements(connection: Connection, chosen: Select[Any], values: Mapping[str, Any]) -> dict[int, Judgement]:
    """Return the judgements of the records by row number, in the order of `chosen`."""
    return {seq: (verification, reason) for seq, verification, reason in connection.execute(chosen, values)}


def _records(connection: Connection, judgements: dict[int, Judgement]) -> dict[int, Knowledge]:
    """Read the records with these row numbers."""
    if not judgements:
        return {}
    seqs = list(judgements)
    rows = connection.execute(select(knowledge).where(knowledge.c.seq.in_(seqs))).all()
    bodies = {
        "task": _bodies(connection, tasks, {row.task for row in rows}),
        "architecture": _bodies(connection, architectures, {row.architecture for row in rows}),
    }
    counts = _parts(connection, class_evaluations, seqs)
    artifacts = _parts(connection, knowledge_artifacts, seqs)
    parents = _parts(connection, knowledge_parents, seqs)
    return {
        row.seq: Knowledge(
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
            evaluation_set=row.evaluation_set and EvaluationSetBody.model_validate(row.evaluation_set).value(),
            published_at=row.published_at,
            verification=_verification(judgements[row.seq]),
            copy_of=row.copy_of,
        )
        for row in rows
    }


def _bodies(connection: Connection, table: Table, seqs: set[int]) -> dict[int, str]:
    query = select(table.c.seq, table.c.body).where(table.c.seq.in_(seqs))
    return {row.seq: row.body for row in connection.execute(query)}


def _parts(connection: Connection, table: Table, seqs: Iterable[int]) -> dict[int, list[Row[Any]]]:
    """Return the rows of a dependent table by record, in order of their key."""
    parts = defaultdict(list)
    for row in connection.execute(select(table).where(table.c.knowledge.in_(seqs)).order_by(*table.primary_key)):
        parts[row.knowledge].append(row)
    return parts


def _verification(judgement: Judgement) -> Verification | None:
    """Return the verifier's finding; under the operator's quarantine only the evaluation is the verifier's."""
    body, reason = judgement
    found = None if body is None else VerificationBody.model_validate_json(body).value()
    if reason is None:
        return found
    evaluation = None if found is None else found.evaluation
    return Verification(standing=Standing.QUARANTINED, reason=reason, evaluation=evaluation)


@lru_cache(maxsize=256)
def _task(body: str) -> Task:
    return TaskBody.model_validate_json(body).value()
