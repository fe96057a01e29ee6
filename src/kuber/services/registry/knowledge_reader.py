"""Read knowledge from rows, with a cache."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, Table, bindparam, func, select

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Knowledge
from kuber.domain.message_limits import MAX_PAGE_BYTES
from kuber.domain.record_memory import task_memory
from kuber.domain.task import Task
from kuber.domain.verification import Standing, Verification
from kuber.services.db.cache import SizedCache
from kuber.services.registry.architecture_pins import read_architecture
from kuber.services.registry.record_cache import CachedRecord, Judgement, RecordCache
from kuber.services.registry.schema import (
    architectures,
    class_evaluations,
    knowledge,
    knowledge_artifacts,
    knowledge_parents,
    later_copies,
    quarantines,
    tasks,
    verifications,
)
from kuber.wire.registry import EvaluationSetBody, TaskBody, VerificationBody

CACHED_TASKS = 32 << 20  # bytes of memory
MAX_SIZES = 100_000  # of tasks and architectures that are remembered

# Bytes of a record as JSON, beside its task and its architecture.
_BASE, _PER_PARENT, _PER_TASK_BYTE = 3000, 40, 4  # counts of a class take about as much as three labels


@dataclass(frozen=True, slots=True)
class FoundRecords:
    """Records of a page with their row numbers, and the ids of those between them that no page can hold.

    `last` is the row number that the page ends with; None when no row follows it.
    """

    records: list[tuple[int, Knowledge]]
    omitted: list[str]
    last: int | None


class _StoredSize(NamedTuple):
    """Size of a stored record as JSON, about: of its task and architecture, and of all."""

    id: str
    fixed: int
    json: int


class KnowledgeReader:
    """Reads and caches records. Safe to use from several threads.

    Only judgements of a record ever change, and they are read each time. Only committed records are cached, since a
    writer's may be rolled back; so the cache holds also when other processes write.
    """

    def __init__(self) -> None:
        self.cache = RecordCache()
        self._sizes: dict[tuple[str, int], int] = {}  # (table, row number) -> characters of a body

    def keep(self, seq: int, record: Knowledge, size: int) -> None:
        """Cache a new record of this size as JSON, which is committed and not judged yet."""
        self.cache.put(seq, CachedRecord((None, None, None), record, size))

    def read(self, connection: Connection, chosen: Select[Any], values: Mapping[str, Any]) -> list[Knowledge]:
        """Return the records that `chosen`, made by `with_judgements`, selects, in its order.

        An unchanged record is the same object each time.
        """
        judgements = _judgements(connection, chosen, values)
        cached = {seq: self.cache.get(seq, judgement) for seq, judgement in judgements.items()}
        sizes = self._stored_sizes(connection, [seq for seq, found in cached.items() if found is None])
        return list(self._read(connection, judgements, cached, sizes).values())

    def read_page(
        self, connection: Connection, chosen: Select[Any], values: Mapping[str, Any], *, limit: int
    ) -> FoundRecords:
        """Return the first records that `chosen` selects: at most `limit`, and at most about MAX_PAGE_BYTES of them.

        Without a limit in bytes a few large records would make a page that no reader can take. Records that alone
        exceed it, which only older versions accepted, are omitted.
        """
        judgements = _judgements(connection, chosen, values)
        seqs = list(judgements)[:limit]
        cached = {seq: self.cache.get(seq, judgements[seq]) for seq in seqs}
        sizes = self._stored_sizes(connection, [seq for seq, found in cached.items() if found is None])
        wanted: dict[int, Judgement] = {}
        omitted: list[str] = []
        total, last = 0, None
        for seq in seqs:
            found = cached[seq]
            size = sizes[seq].json if found is None else found.size
            if found is None and sizes[seq].fixed > MAX_PAGE_BYTES:
                omitted.append(sizes[seq].id)
            elif wanted and total + size > MAX_PAGE_BYTES:
                break
            else:
                wanted[seq] = judgements[seq]
                total += size
            last = seq
        records = list(self._read(connection, wanted, cached, sizes).items())
        ended = last is None or (last == seqs[-1] and len(judgements) <= limit)
        return FoundRecords(records, omitted, None if ended else last)

    def _read(
        self,
        connection: Connection,
        judgements: dict[int, Judgement],
        cached: dict[int, CachedRecord | None],
        sizes: "dict[int, _StoredSize]",
    ) -> dict[int, Knowledge]:
        """Return the records with these row numbers, read those that are not cached, and cache them."""
        read = _records(connection, {seq: found for seq, found in judgements.items() if cached[seq] is None})
        records = {}
        for seq, judgement in judgements.items():
            found = cached[seq] or CachedRecord(judgement, read[seq], sizes[seq].json)
            if seq not in sizes or sizes[seq].fixed <= MAX_PAGE_BYTES:
                self.cache.put(seq, found)
            records[seq] = found.record
        return records

    def _stored_sizes(self, connection: Connection, seqs: list[int]) -> "dict[int, _StoredSize]":
        """Return how large stored records are, without reading them."""
        if not seqs:
            return {}
        rows = connection.execute(_SHAPES, {"seqs": seqs}).all()
        of_tasks = self._lengths(connection, tasks, {row.task for row in rows})
        of_architectures = self._lengths(connection, architectures, {row.architecture for row in rows})
        sizes = {}
        for row in rows:
            task = of_tasks[row.task]
            fixed = task + of_architectures[row.architecture]
            counts = _PER_TASK_BYTE * task + _PER_PARENT * (row.parents or 0)
            sizes[row.seq] = _StoredSize(row.id, fixed, fixed + counts + _BASE)
        return sizes

    def _lengths(self, connection: Connection, table: Table, seqs: set[int]) -> dict[int, int]:
        """Return the lengths of the bodies of these rows, which are remembered."""
        remembered = self._sizes
        known = {seq: remembered[table.name, seq] for seq in seqs if (table.name, seq) in remembered}
        unknown = seqs - known.keys()
        if unknown:
            lengths = select(table.c.seq, func.length(table.c.body)).where(table.c.seq.in_(unknown))
            read = {row[0]: row[1] for row in connection.execute(lengths)}
            if len(self._sizes) > MAX_SIZES:
                self._sizes = {}
            self._sizes |= {(table.name, seq): length for seq, length in read.items()}
            known |= read
        return known


def with_judgements(chosen: Select[Any]) -> Select[Any]:
    """Return the statement that also selects the judgements of the records that `chosen` selects by `seq`.

    One statement selects all that can change; later statements may see a later state.
    """
    seq = chosen.selected_columns["seq"]
    verification = select(verifications.c.body).where(verifications.c.knowledge == seq).scalar_subquery()
    reason = select(quarantines.c.reason).where(quarantines.c.knowledge == seq).scalar_subquery()
    original = select(later_copies.c.original).where(later_copies.c.knowledge == seq).scalar_subquery()
    return chosen.add_columns(verification.label("verification"), reason.label("reason"), original.label("original"))


BY_ID = with_judgements(select(knowledge.c.seq).where(knowledge.c.id == bindparam("id")))
_PARENTS = select(func.max(knowledge_parents.c.position)).where(knowledge_parents.c.knowledge == knowledge.c.seq)
_SHAPES = (
    select(knowledge.c.seq, knowledge.c.id, knowledge.c.task, knowledge.c.architecture)
    .add_columns(_PARENTS.scalar_subquery().label("parents"))
    .where(knowledge.c.seq.in_(bindparam("seqs", expanding=True)))
)
_BY_SEQ = with_judgements(select(knowledge.c.seq).where(knowledge.c.seq == bindparam("seq")))


def read_record(connection: Connection, seq: int) -> Knowledge:
    """Return the record with this row number."""
    return _records(connection, _judgements(connection, _BY_SEQ, {"seq": seq}))[seq]


def _judgements(connection: Connection, chosen: Select[Any], values: Mapping[str, Any]) -> dict[int, Judgement]:
    """Return the judgements of the records by row number, in the order of `chosen`."""
    return {seq: tuple(judgement) for seq, *judgement in connection.execute(chosen, values)}


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
            hub=row.hub,
            prior=row.prior,
            prior_signature=row.prior_signature,
            evaluation_set=row.evaluation_set and EvaluationSetBody.model_validate(row.evaluation_set).value(),
            published_at=row.published_at,
            verification=_verification(judgements[row.seq]),
            copy_of=judgements[row.seq][2] or row.copy_of,
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
    body, reason, _ = judgement
    found = None if body is None else VerificationBody.model_validate_json(body).value()
    if reason is None:
        return found
    evaluation = None if found is None else found.evaluation
    return Verification(standing=Standing.QUARANTINED, reason=reason, evaluation=evaluation)


_read_tasks: SizedCache[str, Task] = SizedCache(CACHED_TASKS)


def _task(body: str) -> Task:
    found = _read_tasks.get(body)
    if found is None:
        found = TaskBody.model_validate_json(body).value()
        _read_tasks.put(body, found, task_memory(found) + 2 * len(body))
    return found
