"""Removing what nobody holds: blobs without a pin whose lease is over, and leftovers of uploads."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, exists, select

from kuber.domain.blob import Collection
from kuber.domain.digest import Digest
from kuber.errors import KUberError, ServiceError, ServiceUnavailableError
from kuber.services.vault.schema import blob_rows, pin_rows, verdict_rows
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads

GRACE = timedelta(hours=1)  # after the lease, or the last unpinning
PERIOD = timedelta(minutes=10)
_BATCH = 64  # blobs of one commit

log = logging.getLogger(__name__)


def collect(store: VaultStore, uploads: Uploads, *, grace: timedelta = GRACE) -> Collection:
    """Remove the blobs that nobody has held since `grace` ago, rows first, and sweep what uploads left.

    Of the vaults that share an index one collects at a time.
    """
    with store.database.lock("collection", "of the vault"):
        return _collect(store, uploads, grace)


def _collect(store: VaultStore, uploads: Uploads, grace: timedelta) -> Collection:
    ended = store.clock() - grace
    blobs = size = 0
    for doomed in _batches(store, ended):
        with store.guard(*doomed):
            removed = _remove_rows(store, doomed, ended)
            for digest, length in removed.items():
                try:
                    store.shelves.remove(digest)
                except ServiceError as error:
                    log.warning("the bytes of %s stay until the next start: %s", digest, error)
                else:
                    blobs, size = blobs + 1, size + length
    return Collection(blobs=blobs, size=size, leftovers=store.shelves.sweep() + uploads.sweep())


@contextmanager
def collecting(
    store: VaultStore,
    uploads: Uploads,
    *,
    period: timedelta,
    grace: timedelta,
    tell: Callable[[Collection], None] = lambda done: None,
) -> Iterator[None]:
    """Collect every `period` in a thread of its own while this is open, and tell; a period of 0 never does."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(period.total_seconds()):
            try:
                done = collect(store, uploads, grace=grace)
            except ServiceUnavailableError as error:  # another vault collects, for one
                log.warning("no collection this time: %s", error)
            except (KUberError, OSError) as error:  # a full disk, for one: the next time may be better
                log.error("collection broke off: %s", error)
            else:
                tell(done)
                if done.blobs or done.leftovers:
                    log.info("collected", extra={"fields": {"blobs": done.blobs, "bytes": done.size}})

    thread = threading.Thread(target=run, name="collection", daemon=True)
    if period:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if period:
            thread.join()


def _batches(store: VaultStore, ended: datetime) -> Iterator[list[Digest]]:
    after = ""
    while True:
        row = blob_rows.c
        query = select(row.digest).where(_free(ended), row.digest > after).order_by(row.digest).limit(_BATCH)
        with store.database.read_snapshot() as connection:
            found = list(connection.scalars(query))
        if not found:
            return
        yield [Digest(hex) for hex in found]
        after = found[-1]


def _remove_rows(store: VaultStore, doomed: list[Digest], ended: datetime) -> dict[Digest, int]:
    """Those of the doomed that are still free, with their sizes. Pins are written by the same thread, so none comes
    between the look and the removal."""
    named = [digest.hex for digest in doomed]

    def work(connection: Connection) -> dict[Digest, int]:
        free = select(blob_rows.c.digest, blob_rows.c.size).where(blob_rows.c.digest.in_(named), _free(ended))
        found = {row.digest: row.size for row in connection.execute(free)}
        for table in (blob_rows, verdict_rows):
            connection.execute(delete(table).where(table.c.digest.in_(list(found))))
        return {Digest(hex): size for hex, size in found.items()}

    return store.database.write(work)


def _free(ended: datetime) -> ColumnElement[bool]:
    """A row of a blob that nobody pins and whose lease was over by then."""
    pinned = exists().where(pin_rows.c.digest == blob_rows.c.digest)
    return (blob_rows.c.leased_until <= ended) & ~pinned
