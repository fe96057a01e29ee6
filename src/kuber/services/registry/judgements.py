"""Judgements of records: verifications and quarantines of the hub, attestations of entities."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from kuber.domain.auth import OPERATOR, RELEASED
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.query import Page, check_limit
from kuber.domain.ranking import recalls
from kuber.domain.verification import Attestation, Standing, Verification
from kuber.errors import ConflictError
from kuber.services.http.pagination import decode, encode, fitting
from kuber.services.registry.audit import add_entry
from kuber.services.registry.latest import update_newest
from kuber.services.registry.schema import attestations, class_evaluations, knowledge, quarantines, verifications
from kuber.wire.base import canonical
from kuber.wire.registry import EvaluationBody, VerificationBody

_ATTESTATION_BYTES = 200  # as JSON without the counts, about


def insert_verification(connection: Connection, record: Knowledge, found: Verification, now: datetime) -> None:
    """Store the hub's verification of a record in place of its previous one, and rank the record by it.

    Raises ConflictError while the operator quarantines the record.
    """
    seq = _seq(connection, record.id)
    if connection.scalar(select(quarantines.c.knowledge).where(quarantines.c.knowledge == seq)) is not None:
        raise ConflictError("The operator has quarantined this record; verify it after its release.")
    connection.execute(delete(verifications).where(verifications.c.knowledge == seq))
    body = canonical(VerificationBody.of(found)).decode()
    connection.execute(insert(verifications), {"knowledge": seq, "body": body, "at": now})
    _rank(connection, seq, record, found)


def quarantine(connection: Connection, id: str, reason: str, now: datetime) -> None:
    """Quarantine a record for the operator; the hub's verification is kept. Idempotent for the same reason."""
    seq = _seq(connection, id)
    existing = quarantines.c.knowledge == seq
    if connection.scalar(select(quarantines.c.reason).where(existing)) == reason:
        return
    connection.execute(delete(quarantines).where(existing))
    connection.execute(insert(quarantines), {"knowledge": seq, "reason": reason, "at": now})
    row = update(knowledge).where(knowledge.c.seq == seq)
    connection.execute(row.values(standing=Standing.QUARANTINED.value))
    update_newest(connection, seq)
    add_entry(connection, now, OPERATOR, Standing.QUARANTINED.value, id, {"reason": reason})


def release(connection: Connection, record: Knowledge, now: datetime) -> None:
    """End the quarantine of a record, the operator's or the verifier's. Idempotent.

    The hub's earlier verification holds again; one that was the reason is deleted, and the record is pending.
    """
    row = connection.execute(select(knowledge.c.seq, knowledge.c.standing).where(knowledge.c.id == record.id)).one()
    if row.standing != Standing.QUARANTINED.value:
        return
    connection.execute(delete(quarantines).where(quarantines.c.knowledge == row.seq))
    existing = verifications.c.knowledge == row.seq
    body = connection.scalar(select(verifications.c.body).where(existing))
    found = None if body is None else VerificationBody.model_validate_json(body).value()
    if found is not None and found.standing is Standing.QUARANTINED:
        connection.execute(delete(verifications).where(existing))
        found = None
    _rank(connection, row.seq, record, found)
    add_entry(
        connection, now, OPERATOR, RELEASED, record.id, {} if found is None else {"standing": found.standing.value}
    )


def _seq(connection: Connection, id: str) -> int:
    seq: int = connection.execute(select(knowledge.c.seq).where(knowledge.c.id == id)).scalar_one()
    return seq


def _rank(connection: Connection, seq: int, record: Knowledge, found: Verification | None) -> None:
    """Rank a record by this verification, or by its claim if there is none on the task's test set."""
    trusted = replace(record, verification=found).trusted
    standing = None if found is None else found.standing.value
    ranked = update(knowledge).where(knowledge.c.seq == seq)
    connection.execute(ranked.values(standing=standing, accuracy=trusted.accuracy))
    part = class_evaluations.c
    classes = update(class_evaluations).where(part.knowledge == seq, part.label == bindparam("at"))
    by_label = [{"at": label, "rank": recall} for label, recall in enumerate(recalls(trusted))]
    connection.execute(classes.values(recall=bindparam("rank")), by_label)
    update_newest(connection, seq)


def insert_attestation(connection: Connection, id: str, entity: str, evaluation: Evaluation, now: datetime) -> None:
    """Store an entity's evaluation of a record in place of its previous one."""
    seq = _seq(connection, id)
    connection.execute(delete(attestations).where(attestations.c.knowledge == seq, attestations.c.entity == entity))
    body = canonical(EvaluationBody.of(evaluation)).decode()
    connection.execute(insert(attestations), {"knowledge": seq, "entity": entity, "body": body, "at": now})


def read_attestations(connection: Connection, id: str, *, limit: int, cursor: str | None) -> Page[Attestation]:
    """Return a page of the entities' attestations of a record, in order of entity id."""
    check_limit(limit)
    row = attestations.c
    of_record = select(knowledge.c.seq).where(knowledge.c.id == id).scalar_subquery()
    chosen = row.knowledge == of_record, row.entity > ("" if cursor is None else decode(cursor, "attested", str)[0])
    sizes = select(row.entity, func.length(row.body)).where(*chosen).order_by(row.entity).limit(limit + 1)
    found = [(entity, length + _ATTESTATION_BYTES) for entity, length in connection.execute(sizes)]
    count = fitting(size for _, size in found[:limit]) if found else 0
    page = connection.execute(select(attestations).where(*chosen).order_by(row.entity).limit(count))
    items = tuple(
        Attestation(entity=row.entity, evaluation=EvaluationBody.model_validate_json(row.body).value(), at=row.at)
        for row in page
    )
    return Page(items=items, cursor=encode("attested", found[count - 1][0]) if count < len(found) else None)
