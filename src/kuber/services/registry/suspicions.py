"""Read suspicions: which records the attestations of entities contradict, and which are copies."""

from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from kuber.domain.knowledge import Knowledge
from kuber.domain.message_limits import MAX_PAGE_BYTES
from kuber.domain.suspicion import Suspicion, suspicion
from kuber.domain.verification import Attestation
from kuber.services.registry.knowledge_reader import KnowledgeReader, with_judgements
from kuber.services.registry.schema import attestations, entities, knowledge
from kuber.wire.registry import EvaluationBody

MAX_ATTESTATIONS = 5000  # of the newest records
MAX_COPIES = 1000  # the newest
MAX_BYTES = 4 * MAX_PAGE_BYTES  # of the attestations, as JSON
BATCH = 200  # records

_ATTESTED = (
    select(attestations.c.knowledge, func.length(attestations.c.body))
    .order_by(attestations.c.knowledge.desc())
    .limit(MAX_ATTESTATIONS)
)
_COPIES = (
    select(knowledge.c.seq, knowledge.c.copy_of)
    .where(knowledge.c.copy_of.is_not(None))
    .order_by(knowledge.c.seq.desc())
    .limit(MAX_COPIES)
)


def read_suspicions(connection: Connection, reader: KnowledgeReader) -> list[Suspicion]:
    """Return the suspicions about the newest attested records and the newest copies, newest first.

    Large attestations and records are read in parts: of all together, no more than a page is in memory at a time.
    """
    sizes: dict[int, int] = defaultdict(int)
    total = 0
    for seq, length in connection.execute(_ATTESTED):
        total += length
        if total > MAX_BYTES:
            break
        sizes[seq] += length
    copies = {row.seq: row.copy_of for row in connection.execute(_COPIES)}
    first = select(knowledge.c.id, knowledge.c.entity).where(knowledge.c.id.in_(set(copies.values())))
    publishers = {row.id: row.entity for row in connection.execute(first)}
    names = {row.id: row.name for row in connection.execute(select(entities.c.id, entities.c.name))}
    found = []
    for part in _parts(sizes, sorted({*sizes, *copies}, reverse=True)):
        attested = _attestations(connection, [seq for seq in part if seq in sizes])
        for seq, record in _records(connection, reader, part):
            publisher = publishers.get(record.copy_of or "")
            made = suspicion(record, attested[seq], names, None if publisher is None else names[publisher])
            if made is not None:
                found.append(made)
    return found


def _parts(sizes: dict[int, int], seqs: list[int]) -> Iterator[list[int]]:
    """Yield the row numbers in parts whose attestations have less than a page of bytes, if they are several."""
    part: list[int] = []
    size = 0
    for seq in seqs:
        size += sizes.get(seq, 0)
        if part and (size > MAX_PAGE_BYTES or len(part) == BATCH):
            yield part
            part, size = [], sizes.get(seq, 0)
        part.append(seq)
    if part:
        yield part


def _attestations(connection: Connection, seqs: list[int]) -> dict[int, list[Attestation]]:
    found: dict[int, list[Attestation]] = defaultdict(list)
    for row in connection.execute(select(attestations).where(attestations.c.knowledge.in_(seqs))):
        evaluation = EvaluationBody.model_validate_json(row.body).value()
        found[row.knowledge].append(Attestation(entity=row.entity, evaluation=evaluation, at=row.at))
    return found


def _records(connection: Connection, reader: KnowledgeReader, seqs: list[int]) -> Iterator[tuple[int, Knowledge]]:
    """Yield the records with these row numbers, newest first, also withdrawn ones; not those that are too large."""
    left = list(seqs)
    while left:
        chosen = select(knowledge.c.seq).where(knowledge.c.seq.in_(left)).order_by(knowledge.c.seq.desc())
        page = reader.read_page(connection, with_judgements(chosen), {}, limit=len(left))
        yield from page.records
        left = [] if page.last is None else [seq for seq in left if seq < page.last]
