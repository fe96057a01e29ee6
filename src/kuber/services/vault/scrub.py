"""Scrubbing: hash stored blobs again and quarantine the damaged ones."""

import logging
from typing import Literal

from sqlalchemy import Connection, delete, func, select

from kuber.domain.blob import Rot, Scrub
from kuber.domain.digest import Digest
from kuber.services.vault.schema import blob_rows, pin_rows, verdict_rows
from kuber.services.vault.store import VaultStore

BATCH_BYTES = 256 << 20  # after which a batch ends, so that each request takes seconds

log = logging.getLogger(__name__)


def scrub(store: VaultStore, *, limit: int = 100, cursor: str | None = None, batch_bytes: int = BATCH_BYTES) -> Scrub:
    """Hash the next blobs in order of digest, at most `limit` of them and about `batch_bytes`.

    The row of a damaged or lost blob is deleted, and the bytes of a damaged one are moved to `quarantine/`. Its pins
    remain, and hold again when the bytes are stored again.
    """
    page = store.blobs(limit=limit, cursor=cursor)
    rotten: list[Rot] = []
    blobs = size = 0
    for artifact in page.items:
        blobs += 1
        size += artifact.size
        rot = _scrub_blob(store, artifact.digest)
        if rot is not None:
            log.error("blob %s is %s; %d records hold it", rot.digest, rot.fault, rot.holders)
            rotten.append(rot)
        if size >= batch_bytes:
            break
    ended = blobs == len(page.items) and page.cursor is None
    cursor = None if ended else page.items[blobs - 1].digest.hex
    return Scrub(blobs=blobs, size=size, rotten=tuple(rotten), cursor=cursor)


def _scrub_blob(store: VaultStore, digest: Digest) -> Rot | None:
    hashed = store.storage.hash(digest)
    if hashed is not None and hashed.hex == digest.hex:
        return None
    with store.lock(digest):
        stat = store.storage.stat(digest)
        if stat != (None if hashed is None else hashed.stat):
            return None  # it was stored again, or collected, meanwhile
        return _quarantine(store, digest, "lost" if stat is None else "damaged")


def _quarantine(store: VaultStore, digest: Digest, fault: Literal["damaged", "lost"]) -> Rot | None:
    """Delete the row, then move the bytes; None when the row was deleted before."""

    def work(connection: Connection) -> int | None:
        deleted = connection.execute(delete(blob_rows).where(blob_rows.c.digest == digest.hex)).rowcount
        connection.execute(delete(verdict_rows).where(verdict_rows.c.digest == digest.hex))
        holders = select(func.count()).select_from(pin_rows).where(pin_rows.c.digest == digest.hex)
        return connection.execute(holders).scalar_one() if deleted else None

    holders = store.database.write(work)
    if holders is None:
        return None
    if fault == "damaged":
        store.storage.quarantine(digest)
    return Rot(digest=digest, fault=fault, holders=holders)
