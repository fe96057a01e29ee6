"""Retention: withdraw an entity's superseded records, except its best on each task and its newest."""

from sqlalchemy import Connection, or_, select, update

from kuber.domain.auth import RETENTION
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Standing
from kuber.services.registry.audit import add_entry
from kuber.services.registry.schema import knowledge, newest_knowledge

MAX_WITHDRAWN = 64  # records withdrawn with one publication; later publications withdraw the rest


def retire(connection: Connection, record: Knowledge, *, best: int) -> list[str]:
    """Withdraw the records that a new one supersedes, and return their ids.

    All but the `best` most accurate of the publisher on that task are withdrawn. The new record and the one that is
    `latest`, initial checkpoints and quarantined records stay and are not counted. With `best` 0 all stay.
    """
    if record.round == 0 or best == 0:
        return []
    now, row = record.published_at, knowledge.c
    newest = select(newest_knowledge.c.knowledge).where(newest_knowledge.c.entity == record.entity)
    older = (
        select(row.seq, row.id)
        .where(
            row.entity == record.entity,
            row.task_name == record.task.name,
            row.test_set == record.evaluation.test_set.hex,
            row.withdrawn_at.is_(None),
            or_(row.standing.is_(None), row.standing != Standing.QUARANTINED.value),
            row.round > 0,
            row.id != record.id,
            row.seq.not_in(newest),
        )
        .order_by(row.accuracy.desc(), row.seq.desc())
        .offset(best)
        .limit(MAX_WITHDRAWN)
    )
    retired = connection.execute(older).all()
    for seq, id in retired:
        connection.execute(update(knowledge).where(row.seq == seq).values(withdrawn_at=now))
        add_entry(connection, now, RETENTION, "withdraw", id)
    return [id for _, id in retired]
