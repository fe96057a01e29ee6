"""Hashing stored blobs again, and setting aside those that rotted."""

import logging
from typing import Literal

from sqlalchemy import Connection, delete, func, select

from kuber.domain.blob import Rot, Scrub
from kuber.domain.digest import Digest
from kuber.services.vault.schema import blob_rows, pin_rows, verdict_rows
from kuber.services.vault.store import VaultStore

STRETCH = 256 << 20  # bytes after which a stretch ends, so that each is answered within seconds

log = logging.getLogger(__name__)


def scrub(store: VaultStore, *, limit: int = 100, cursor: str | None = None, stretch: int = STRETCH) -> Scrub:
    """Hash the next blobs in order of digest, at most `limit` and about `stretch` bytes.

    A damaged one is moved to `quarantine/` and its row removed; its pins stay, and hold again when the bytes are put
    again. So with a row whose bytes are gone.
    """
    page = store.blobs(limit=limit, cursor=cursor)
    rotten: list[Rot] = []
    blobs = size = 0
    for artifact in page.items:
        blobs += 1
        size += artifact.size
        rot = _look_at(store, artifact.digest)
        if rot is not None:
            log.error("blob %s is %s; %d records hold it", rot.digest, rot.fault, rot.holders)
            rotten.append(rot)
        if size >= stretch:
            break
    ended = blobs == len(page.items) and page.cursor is None
    cursor = None if ended else page.items[blobs - 1].digest.hex
    return Scrub(blobs=blobs, size=size, rotten=tuple(rotten), cursor=cursor)


def _look_at(store: VaultStore, digest: Digest) -> Rot | None:
    seen = store.shelves.hashed(digest)
    if seen is not None and seen.hex == digest.hex:
        return None
    with store.guard(digest):
        now = store.shelves.look(digest)
        if now != (None if seen is None else seen.seen):
            return None  # put again, or collected, meanwhile
        return _set_aside(store, digest, "lost" if now is None else "damaged")


def _set_aside(store: VaultStore, digest: Digest, fault: Literal["damaged", "lost"]) -> Rot | None:
    """Remove the row, then move the bytes; None when there was no row any more."""

    def work(connection: Connection) -> int | None:
        gone = connection.execute(delete(blob_rows).where(blob_rows.c.digest == digest.hex)).rowcount
        connection.execute(delete(verdict_rows).where(verdict_rows.c.digest == digest.hex))
        holders = select(func.count()).select_from(pin_rows).where(pin_rows.c.digest == digest.hex)
        return connection.execute(holders).scalar_one() if gone else None

    holders = store.database.write(work)
    if holders is None:
        return None
    if fault == "damaged":
        store.shelves.set_aside(digest)
    return Rot(digest=digest, fault=fault, holders=holders)
