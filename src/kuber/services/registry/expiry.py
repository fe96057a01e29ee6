"""Expiry: remove events, deliveries and withdrawn records that have reached the age that the operator chose."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Table, and_, delete, exists, func, insert, or_, select, update

from kuber.domain.auth import PUBLISH, RELEASED
from kuber.domain.event import utc_now
from kuber.domain.verification import Standing
from kuber.errors import KUberError
from kuber.services.db.database import Database
from kuber.services.registry.schema import (
    attestations,
    audit,
    class_evaluations,
    deliveries,
    delivery_teachers,
    expiry,
    knowledge,
    knowledge_artifacts,
    knowledge_parents,
    later_copies,
    newest_knowledge,
    quarantines,
    verifications,
)

BATCH = 100  # rows of one commit
PAUSE = 0.05  # seconds between two commits, for the writes of others
PERIOD = timedelta(hours=1)  # at most, between two passes
# Events that describe an entity or a record stay as long as it does: those who follow from the first event need them.
ABOUT_ENTITIES = ("enrol",)
ABOUT_RECORDS = (PUBLISH, "withdraw", RELEASED, *(standing.value for standing in Standing))

_PARTS: tuple[Table, ...] = (
    class_evaluations,
    knowledge_artifacts,
    knowledge_parents,
    verifications,
    quarantines,
    later_copies,
    attestations,
)
_IS_NAMED = or_(
    exists().where(knowledge_parents.c.parent == knowledge.c.id),
    exists().where(delivery_teachers.c.knowledge == knowledge.c.id),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """Numbers of removed rows."""

    events: int = 0
    deliveries: int = 0
    records: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Events that are no longer there: removed ones up to the number `through`, the last of them of the time `until`.

    Some events with lower numbers are still there.
    """

    through: int
    until: datetime


def expire(
    database: Database,
    before: datetime,
    *,
    pause: Callable[[], bool] = lambda: False,
    on_record: Callable[[str], None] = lambda id: None,
) -> Removed:
    """Remove what is older than `before`, in small commits; return how much.

    Withdrawn records stay while others name them as parents or teachers. The last event stays, as numbers continue
    from it. `pause` is called between commits, and returns whether to stop; `on_record` with each removed record.
    """
    numbers: list[int] = []
    stopped = False
    for next_batch, remove in (
        (_old_deliveries, _remove_deliveries),
        (_withdrawn_records, partial(_remove_records, on_record=on_record)),
        (_old_events, _remove_events),
    ):
        numbers.append(0)
        position: int | None = None
        while not stopped:
            with database.read_snapshot() as connection:
                seqs = next_batch(connection, before, position)
            if not seqs:
                break
            numbers[-1] += database.write(partial(remove, before=before, seqs=seqs))
            position = seqs[-1]
            stopped = pause()
    return Removed(deliveries=numbers[0], records=numbers[1], events=numbers[2])


def read_gap(connection: Connection) -> Gap | None:
    """Return which events are no longer there, None when all are."""
    row = connection.execute(select(expiry.c.through, expiry.c.until)).one_or_none()
    return None if row is None or not row.through else Gap(through=row.through, until=row.until)


@contextmanager
def periodic_expiry(
    database: Database,
    age: timedelta | None,
    *,
    on_record: Callable[[str], None] = lambda id: None,
    clock: Callable[[], datetime] = utc_now,
) -> Iterator[None]:
    """Remove what is older than `age` in a thread, now and again; None disables it."""
    if age is None:
        yield
        return
    stop = threading.Event()
    period = min(PERIOD, age / 10).total_seconds()

    def run() -> None:
        while True:
            try:
                done = expire(database, clock() - age, pause=lambda: stop.wait(PAUSE), on_record=on_record)
            except KUberError as error:  # for example, an unreachable database server: the next time may succeed
                log.warning("nothing was removed because of its age: %s", error)
            else:
                if done != Removed():
                    fields = {"events": done.events, "deliveries": done.deliveries, "records": done.records}
                    log.info("removed what was too old", extra={"fields": fields})
            if stop.wait(max(period, PAUSE)):
                return

    thread = threading.Thread(target=run, name="expiry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _old_deliveries(connection: Connection, before: datetime, position: int | None) -> list[int]:
    row = deliveries.c
    query = select(row.seq).where(row.recorded_at < before, row.seq > (position or 0)).order_by(row.seq)
    return list(connection.scalars(query.limit(BATCH)))


def _remove_deliveries(connection: Connection, *, before: datetime, seqs: list[int]) -> int:
    connection.execute(delete(delivery_teachers).where(delivery_teachers.c.delivery.in_(seqs)))
    connection.execute(delete(deliveries).where(deliveries.c.seq.in_(seqs)))
    _add(connection, deliveries=len(seqs), until=before)
    return len(seqs)


def _withdrawn_records(connection: Connection, before: datetime, position: int | None) -> list[int]:
    """Return the next withdrawn records, latest first: a child goes before its parents."""
    row = knowledge.c
    query = select(row.seq).where(row.withdrawn_at < before, ~_IS_NAMED).order_by(row.seq.desc())
    if position is not None:
        query = query.where(row.seq < position)
    return list(connection.scalars(query.limit(BATCH)))


def _remove_records(
    connection: Connection, *, before: datetime, seqs: list[int], on_record: Callable[[str], None]
) -> int:
    columns = knowledge.c
    old = columns.seq.in_(seqs), columns.withdrawn_at < before
    unnamed = select(columns.seq, columns.id).where(*old, ~_IS_NAMED)
    newest = set(
        connection.scalars(select(newest_knowledge.c.knowledge).where(newest_knowledge.c.knowledge.in_(seqs)))
    )
    # Again: one may have been named meanwhile.
    found = [row for row in connection.execute(unnamed).all() if row.seq not in newest]
    removed = [seq for seq, _ in found]
    for table in _PARTS:
        connection.execute(delete(table).where(table.c.knowledge.in_(removed)))
    connection.execute(delete(knowledge).where(columns.seq.in_(removed)))
    _add(connection, records=len(removed), until=before)
    for _, id in found:
        on_record(id)
    return len(removed)


def _old_events(connection: Connection, before: datetime, position: int | None) -> list[int]:
    row = audit.c
    last = connection.scalar(select(func.max(row.seq))) or 0
    about_nothing = and_(
        row.act.not_in(ABOUT_ENTITIES),
        or_(row.act.not_in(ABOUT_RECORDS), ~exists().where(knowledge.c.id == row.subject)),
    )
    query = select(row.seq).where(row.time < before, row.seq > (position or 0), row.seq < last, about_nothing)
    return list(connection.scalars(query.order_by(row.seq).limit(BATCH)))


def _remove_events(connection: Connection, *, before: datetime, seqs: list[int]) -> int:
    until = connection.scalar(select(func.max(audit.c.time)).where(audit.c.seq.in_(seqs))) or before
    connection.execute(delete(audit).where(audit.c.seq.in_(seqs)))
    _add(connection, events=len(seqs), through=seqs[-1], until=until)
    return len(seqs)


def _add(connection: Connection, *, until: datetime, through: int = 0, **counts: int) -> None:
    """Add to the summary of what was removed."""
    row = connection.execute(select(expiry)).one_or_none()
    if row is None:
        before = {"through": 0, "until": until, "events": 0, "deliveries": 0, "records": 0}
        connection.execute(insert(expiry), {"id": 1, **before})
        row = connection.execute(select(expiry)).one()
    values = {name: getattr(row, name) + count for name, count in counts.items()}
    if through > row.through:
        values |= {"through": through, "until": until}
    connection.execute(update(expiry).values(values))
