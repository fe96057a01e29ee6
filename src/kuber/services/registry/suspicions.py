"""Read suspicions: which records the attestations of entities contradict, and which are copies."""

from collections import defaultdict

from sqlalchemy import Connection, select

from kuber.domain.knowledge import Knowledge
from kuber.domain.suspicion import Suspicion, suspicion
from kuber.domain.verification import Attestation
from kuber.services.registry.knowledge_reader import KnowledgeReader, with_judgements
from kuber.services.registry.schema import attestations, entities, knowledge
from kuber.wire.registry import EvaluationBody

MAX_ATTESTATIONS = 5000  # of the newest records
MAX_COPIES = 1000  # the newest

_ATTESTED = select(attestations).order_by(attestations.c.knowledge.desc()).limit(MAX_ATTESTATIONS)
_COPIES = (
    select(knowledge.c.seq, knowledge.c.copy_of)
    .where(knowledge.c.copy_of.is_not(None))
    .order_by(knowledge.c.seq.desc())
    .limit(MAX_COPIES)
)


def read_suspicions(connection: Connection, reader: KnowledgeReader) -> list[Suspicion]:
    """Return the suspicions about the newest attested records and the newest copies, newest first."""
    found: dict[int, list[Attestation]] = defaultdict(list)
    for row in connection.execute(_ATTESTED):
        evaluation = EvaluationBody.model_validate_json(row.body).value()
        found[row.knowledge].append(Attestation(entity=row.entity, evaluation=evaluation, at=row.at))
    copies = connection.execute(_COPIES).all()
    records = _records(connection, reader, {*found, *(row.seq for row in copies)})
    firsts = {
        record.id: record
        for record in _records(
            connection,
            reader,
            set(
                connection.scalars(select(knowledge.c.seq).where(knowledge.c.id.in_({row.copy_of for row in copies})))
            ),
        ).values()
    }
    ids = {record.entity for record in (*records.values(), *firsts.values())}
    ids |= {attestation.entity for made in found.values() for attestation in made}
    names = {row.id: row.name for row in connection.execute(select(entities.c.id, entities.c.name)) if row.id in ids}
    suspicions = (
        suspicion(record, found[seq], names, firsts.get(record.copy_of or ""))
        for seq, record in sorted(records.items(), reverse=True)
    )
    return [each for each in suspicions if each is not None]


def _records(connection: Connection, reader: KnowledgeReader, seqs: set[int]) -> dict[int, Knowledge]:
    """Return the records with these row numbers, also withdrawn ones."""
    chosen = with_judgements(select(knowledge.c.seq).where(knowledge.c.seq.in_(seqs)))
    return dict(reader.read(connection, chosen, {}))
