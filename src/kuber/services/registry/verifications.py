"""Verifications and quarantines of records by the hub, and attestations by entities."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from kuber.domain.auth import OPERATOR, RELEASED
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.ranking import recalls
from kuber.domain.verification import Attestation, Standing, Verification
from kuber.errors import ConflictError
from kuber.services.registry.audit import note
from kuber.services.registry.latest import find_newest
from kuber.services.registry.schema import (
    attestations,
    class_evaluations,
    knowledge,
    quarantines,
    verifications,
)
from kuber.wire import EvaluationBody, VerificationBody, canonical


def insert_verification(connection: Connection, record: Knowledge, found: Verification, now: datetime) -> None:
    """Store what the hub found, instead of what it found before; the ranks follow.

    ConflictError while the operator's quarantine stands.
    """
    seq = _seq(connection, record.id)
    if connection.scalar(select(quarantines.c.knowledge).where(quarantines.c.knowledge == seq)) is not None:
        raise ConflictError("The operator quarantined this record; verify it when the operator has released it.")
    connection.execute(delete(verifications).where(verifications.c.knowledge == seq))
    body = canonical(VerificationBody.of(found)).decode()
    connection.execute(insert(verifications), {"knowledge": seq, "body": body, "at": now})
    _rank(connection, seq, record, found)


def quarantine(connection: Connection, id: str, reason: str, now: datetime) -> None:
    """Store that the operator quarantined a record; what the hub found stays beside it. The same again: nothing."""
    seq = _seq(connection, id)
    there = quarantines.c.knowledge == seq
    if connection.scalar(select(quarantines.c.reason).where(there)) == reason:
        return
    connection.execute(delete(quarantines).where(there))
    connection.execute(insert(quarantines), {"knowledge": seq, "reason": reason, "at": now})
    row = update(knowledge).where(knowledge.c.seq == seq)
    connection.execute(row.values(standing=Standing.QUARANTINED.value))
    find_newest(connection, seq)
    note(connection, now, OPERATOR, Standing.QUARANTINED.value, id, {"reason": reason})


def release(connection: Connection, record: Knowledge, now: datetime) -> None:
    """End the quarantine of a record, whoever ordered it; without one, nothing.

    What the hub had found holds again, unless it was the reason: then the record waits to be looked at.
    """
    row = connection.execute(select(knowledge.c.seq, knowledge.c.standing).where(knowledge.c.id == record.id)).one()
    if row.standing != Standing.QUARANTINED.value:
        return
    connection.execute(delete(quarantines).where(quarantines.c.knowledge == row.seq))
    there = verifications.c.knowledge == row.seq
    body = connection.scalar(select(verifications.c.body).where(there))
    found = None if body is None else VerificationBody.model_validate_json(body).value()
    if found is not None and found.standing is Standing.QUARANTINED:
        connection.execute(delete(verifications).where(there))
        found = None
    _rank(connection, row.seq, record, found)
    note(connection, now, OPERATOR, RELEASED, record.id, {} if found is None else {"standing": found.standing.value})


def _seq(connection: Connection, id: str) -> int:
    seq: int = connection.execute(select(knowledge.c.seq).where(knowledge.c.id == id)).scalar_one()
    return seq


def _rank(connection: Connection, seq: int, record: Knowledge, found: Verification | None) -> None:
    """Let a record stand where this finding puts it; where its claim does, when nothing was found."""
    evaluation = found.evaluation if found is not None else None
    ranked = evaluation if evaluation is not None and evaluation.test_set == record.task.test_set else None
    accuracy = (ranked or record.evaluation).accuracy
    standing = None if found is None else found.standing.value
    connection.execute(update(knowledge).where(knowledge.c.seq == seq).values(standing=standing, accuracy=accuracy))
    found_recalls = [
        {"of": seq, "at": label, "found": recall} for label, recall in enumerate(recalls(ranked or record.evaluation))
    ]
    part = class_evaluations.c
    classes = update(class_evaluations).where(part.knowledge == bindparam("of"), part.label == bindparam("at"))
    connection.execute(classes.values(recall=bindparam("found")), found_recalls)
    find_newest(connection, seq)


def insert_attestation(connection: Connection, id: str, entity: str, evaluation: Evaluation, now: datetime) -> None:
    """Store what an entity found, instead of what it found before."""
    seq = _seq(connection, id)
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
            at=row.at,
        )
        for row in connection.execute(wanted.where(knowledge.c.id == id).order_by(attestations.c.entity))
    )
