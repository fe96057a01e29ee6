"""Status of a vault: one page of numbers for the operator."""

from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import case, func, select

import kuber
from kuber.services.vault.schema import blob_rows, pin_rows
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads
from kuber.wire.status import GrowthBody, VaultStatusBody

AGES = (timedelta(days=1), timedelta(days=7))


def read_status(store: VaultStore, uploads: Uploads, now: datetime) -> VaultStatusBody:
    """Return the numbers. It reads whole tables, so it belongs in a thread."""
    row = blob_rows.c
    recent = [case((row.stored_at >= now - age, 1), else_=0) for age in AGES]
    counts = [func.coalesce(func.sum(each), 0) for each in recent]
    sizes = [func.coalesce(func.sum(each * row.size), 0) for each in (1, *recent)]
    with store.database.read_snapshot() as connection:
        found = connection.execute(select(func.count(), *counts, *sizes).select_from(blob_rows)).one()
        numbers = [int(number) for number in found]
        pinned = connection.scalar(select(func.count(pin_rows.c.digest.distinct()))) or 0
        database_bytes = store.database.size(connection)
    received, announced = uploads.bytes_under_way()
    return VaultStatusBody(
        version=kuber.__version__,
        at=now,
        blobs=GrowthBody(total=numbers[0], day=numbers[1], week=numbers[2]),
        blob_bytes=GrowthBody(total=numbers[3], day=numbers[4], week=numbers[5]),
        pinned=pinned,
        uploads=uploads.in_progress,
        received_bytes=received,
        announced_bytes=announced,
        damaged=_damaged(store),
        database_bytes=database_bytes,
        free_bytes=store.disk.free,
        kept_free_bytes=store.disk.keep,
        total_quota=store.total.quota,
    )


def _damaged(store: VaultStore) -> int:
    """Return how many damaged blobs lie in the folder's quarantine; in a bucket they are not counted."""
    with suppress(OSError):
        return sum(1 for _ in (store.folder / "quarantine").iterdir())
    return 0
