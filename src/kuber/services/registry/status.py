"""Status of a registry: one page of numbers for the operator."""

import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Column, Connection, and_, case, func, select

import kuber
from kuber.domain.verification import Standing
from kuber.errors import ServiceError
from kuber.services.backup_manifest import last_backup, read_manifest
from kuber.services.db.database import Database
from kuber.services.registry.schema import audit, deliveries, entities, expiry, knowledge, tasks
from kuber.wire.status import GrowthBody, RegistryStatusBody

DAY, WEEK = timedelta(days=1), timedelta(days=7)


def read_status(database: Database, *, now: datetime, active: int, folder: Path | None) -> RegistryStatusBody:
    """Return the numbers. `active` is how many entities have sent requests; `folder` is that of the data, if known.

    It reads whole tables, so it belongs in a thread.
    """
    backup_at, backup_folder = _last_backup(folder)
    row = knowledge.c
    kept = row.withdrawn_at.is_(None)
    quarantined = and_(kept, row.standing == Standing.QUARANTINED.value)
    with database.read_snapshot() as connection:
        removed = connection.execute(select(expiry.c.events, expiry.c.records)).one_or_none()
        records = growth(connection, row.published_at, now)
        withdrawn, hidden, pending = connection.execute(
            select(
                func.count(row.withdrawn_at),
                func.coalesce(func.sum(case((quarantined, 1), else_=0)), 0),
                func.coalesce(func.sum(case((and_(kept, row.standing.is_(None)), 1), else_=0)), 0),
            )
        ).one()
        return RegistryStatusBody(
            version=kuber.__version__,
            at=now,
            entities=growth(connection, entities.c.registered_at, now),
            active=active,
            blocked=connection.scalar(select(func.count(entities.c.blocked_at))) or 0,
            records=records,
            visible=records.total - withdrawn - hidden,
            withdrawn=withdrawn,
            quarantined=hidden,
            pending=pending,
            tasks=connection.scalar(select(func.count()).select_from(tasks)) or 0,
            deliveries=growth(connection, deliveries.c.recorded_at, now),
            events=growth(connection, audit.c.time, now),
            first_event=connection.scalar(select(audit.c.time).order_by(audit.c.seq).limit(1)),
            removed_events=removed.events if removed else 0,
            removed_records=removed.records if removed else 0,
            database_bytes=database.size(connection),
            free_bytes=free_bytes(folder),
            backup_at=backup_at,
            backup_folder=backup_folder,
        )


def growth(connection: Connection, time: Column[datetime], now: datetime) -> GrowthBody:
    """Return how many rows there are, and how many of them have a time in the last day and week."""
    counts = [func.coalesce(func.sum(case((time >= now - age, 1), else_=0)), 0) for age in (DAY, WEEK)]
    total, day, week = connection.execute(select(func.count(), *counts).select_from(time.table)).one()
    return GrowthBody(total=total, day=day, week=week)


def free_bytes(folder: Path | None) -> int | None:
    """Return the free bytes of the disk with this folder, if they can be read."""
    if folder is None:
        return None
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def _last_backup(folder: Path | None) -> tuple[datetime | None, str | None]:
    """Return when the last known backup of this folder was made, and where it lies."""
    with suppress(ServiceError):
        known = None if folder is None else last_backup(folder)
        if known is not None:
            return read_manifest(known).made_at, str(known)
    return None, None
