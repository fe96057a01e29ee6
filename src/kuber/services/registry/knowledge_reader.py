"""Rows to knowledge, and what of it need not be read again."""

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
from kuber.services.registry.knowledge_writer import read_architecture
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
from kuber.wire import TaskBody, VerificationBody

REMEMBERED = 40_000  # records; some 5 KB each

Judgement = tuple[str | None, str | None]  # what the verifier found, as JSON, and the operator's reason


class KnowledgeReader:
    """Reads records. Nothing of one ever changes but what was found out about it, and that is read anew each time.

    Remembered is only what is committed, as what a writer sees may be undone: then it holds in every process. Safe to
    use from several threads.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Judgement, Knowledge]] = {}  # by number, since the last turn
        self._before: dict[int, tuple[Judgement, Knowledge]] = {}  # from one turn to the next

    def keep(self, seq: int, record: Knowledge) -> None:
        """Remember a new record, which is committed and of which nothing was found out yet."""
        self._remember({seq: ((None, None), record)})

    def read(
        self, connection: Connection, chosen: Select[Any], values: Mapping[str, Any]
    ) -> list[tuple[int, Knowledge]]:
        """The records that `chosen`, made by `with_findings`, selects with these values, in its order and with their
        numbers; the same value for the same record.
        """
        found = _judgements(connection, chosen, values)
        there = {}
        for seq, judgement in found.items():
            known = self._known.get(seq) or self._before.get(seq)
            if known is not None and known[0] == judgement:
                there[seq] = known[1]
        lacking = {seq: judgement for seq, judgement in found.items() if seq not in there}
        read = _records(connection, lacking)
        there |= read
        self._remember({seq: (found[seq], record) for seq, record in there.items()})
        return [(seq, there[seq]) for seq in found]

    def _remember(self, read: dict[int, tuple[Judgement, Knowledge]]) -> None:
        """What nobody asks for from one turn to the next is forgotten."""
        if len(self._known) + len(read) > REMEMBERED // 2:
            self._before, self._known = self._known, {}
        self._known.update(read)  # in place: another thread may have turned meanwhile


def with_findings(chosen: Select[Any]) -> Select[Any]:
    """The statement that also tells what was found out about the records whose numbers `chosen` selects as `seq`.

    All that can change comes from one statement: those that follow may see a later state.
    """
    seq = chosen.selected_columns["seq"]
    finding = select(verifications.c.body).where(verifications.c.knowledge == seq).scalar_subquery()
    reason = select(quarantines.c.reason).where(quarantines.c.knowledge == seq).scalar_subquery()
    return chosen.add_columns(finding.label("finding"), reason.label("reason"))


BY_ID = with_findings(select(knowledge.c.seq).where(knowledge.c.id == bindparam("id")))
_BY_SEQ = with_findings(select(knowledge.c.seq).where(knowledge.c.seq == bindparam("seq")))


def read_record(connection: Connection, seq: int) -> Knowledge:
    """The record with this number."""
    return _records(connection, _judgements(connection, _BY_SEQ, {"seq": seq}))[seq]


def _judgements(connection: Connection, chosen: Select[Any], values: Mapping[str, Any]) -> dict[int, Judgement]:
    """What was found out about each of these records, by number, in the order of `chosen`."""
    return {seq: (finding, reason) for seq, finding, reason in connection.execute(chosen, values)}


def _records(connection: Connection, judged: dict[int, Judgement]) -> dict[int, Knowledge]:
    """The records with these numbers."""
    if not judged:
        return {}
    seqs = list(judged)
    found = connection.execute(select(knowledge).where(knowledge.c.seq.in_(seqs))).all()
    bodies = {
        "task": _bodies(connection, tasks, {row.task for row in found}),
        "architecture": _bodies(connection, architectures, {row.architecture for row in found}),
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
            published_at=row.published_at,
            verification=_verification(judged[row.seq]),
        )
        for row in found
    }


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
