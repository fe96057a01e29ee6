"""What is kept of an entity that publishes for long: its best on each task, and its newest."""

from datetime import datetime

from sqlalchemy import Connection, or_, select, update

from kuber.domain.auth import RETENTION
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Standing
from kuber.services.registry.audit import note
from kuber.services.registry.schema import knowledge

AT_ONCE = 64  # records withdrawn with one publication: what there is more goes with the next ones


def retire(connection: Connection, record: Knowledge, *, best: int, now: datetime) -> list[str]:
    """Withdraw what is worse than the `best` best of the publisher's on the task of its newest record: their ids.

    The newest itself, initial checkpoints and what is quarantined stay, and are not counted.
    """
    if record.round == 0:
        return []
    row = knowledge.c
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
        )
        .order_by(row.accuracy.desc(), row.seq.desc())
        .offset(best)
        .limit(AT_ONCE)
    )
    ended = connection.execute(older).all()
    for seq, id in ended:
        connection.execute(update(knowledge).where(row.seq == seq).values(withdrawn_at=now))
        note(connection, now, RETENTION, "withdraw", id)
    return [id for _, id in ended]
