"""What others found out about records: verifications of the hub, attestations of entities."""

from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation, Verification
from kuber.services.registry_tables import attestations, class_evaluations, knowledge, verifications
from kuber.wire import EvaluationBody, VerificationBody, canonical


def insert_verification(connection: Connection, record: Knowledge, found: Verification, now: datetime) -> None:
    """Store what the hub found, instead of what it found before; the ranks follow."""
    seq = connection.execute(select(knowledge.c.seq).where(knowledge.c.id == record.id)).scalar_one()
    connection.execute(delete(verifications).where(verifications.c.knowledge == seq))
    body = canonical(VerificationBody.of(found)).decode()
    connection.execute(insert(verifications), {"knowledge": seq, "body": body, "at": now})
    ranked = found.evaluation if found.evaluation and found.evaluation.test_set == record.task.test_set else None
    accuracy = (ranked or record.evaluation).accuracy
    row = update(knowledge).where(knowledge.c.seq == seq)
    connection.execute(row.values(standing=found.standing.value, accuracy=accuracy))
    counts = [
        {"of": seq, "at": label, "found": correct}
        for label, correct in enumerate(ranked.correct if ranked else (None,) * record.task.classes)
    ]
    part = class_evaluations.c
    classes = update(class_evaluations).where(part.knowledge == bindparam("of"), part.label == bindparam("at"))
    connection.execute(classes.values(verified=bindparam("found")), counts)


def insert_attestation(connection: Connection, id: str, entity: str, evaluation: Evaluation, now: datetime) -> None:
    """Store what an entity found, instead of what it found before."""
    seq = connection.execute(select(knowledge.c.seq).where(knowledge.c.id == id)).scalar_one()
    connection.execute(delete(attestations).where(attestations.c.knowledge == seq, attestations.c.entity == entity))
    body = canonical(EvaluationBody.of(evaluation)).decode()
    connection.execute(insert(attestations), {"knowledge": seq, "entity": entity, "body": body, "at": now})


def read_attestations(connection: Connection, id: str) -> tuple[Attestation, ...]:
    """What entities found about a record, in order of their ids."""
    wanted = select(attestations).join(knowledge, knowledge.c.seq == attestations.c.knowledge)
    return tuple(
        Attestation(
            entity=row.entity,
            evaluation=EvaluationBody.model_validate_json(row.body).value(),
            at=row.at.replace(tzinfo=UTC),
        )
        for row in connection.execute(wanted.where(knowledge.c.id == id).order_by(attestations.c.entity))
    )
