"""Garbage collection: delete blobs without a pin whose lease has expired, and abandoned uploads."""

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

GRACE = timedelta(hours=1)  # after the lease has expired, or the last unpin
PERIOD = timedelta(minutes=10)
_BATCH = 64  # blobs per commit

log = logging.getLogger(__name__)


def collect(store: VaultStore, uploads: Uploads, *, grace: timedelta = GRACE) -> Collection:
    """Delete the blobs that have been free for the grace period, rows first, and abandoned uploads.

    Of the vaults that share an index, one collects at a time.
    """
    with store.database.lock("collection", "of the vault"):
        return _collect(store, uploads, grace)


def _collect(store: VaultStore, uploads: Uploads, grace: timedelta) -> Collection:
    threshold = store.clock() - grace
    blobs = size = 0
    for candidates in _batches(store, threshold):
        with store.lock(*candidates):
            deleted = _delete_rows(store, candidates, threshold)
            for digest, length in deleted.items():
                try:
                    store.storage.delete(digest)
                except ServiceError as error:
                    log.warning("the bytes of %s stay until the next start: %s", digest, error)
                else:
                    blobs, size = blobs + 1, size + length
    leftovers = store.storage.purge_incomplete() + uploads.purge_expired()
    return Collection(blobs=blobs, size=size, leftovers=leftovers)


@contextmanager
def periodic_collection(
    store: VaultStore,
    uploads: Uploads,
    *,
    period: timedelta,
    grace: timedelta,
    on_collection: Callable[[Collection], None] = lambda done: None,
) -> Iterator[None]:
    """Collect every `period` in a thread, and report each collection; a period of 0 disables it."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(period.total_seconds()):
            try:
                done = collect(store, uploads, grace=grace)
            except ServiceUnavailableError as error:  # for example, another vault is collecting
                log.warning("no collection this time: %s", error)
            except (KUberError, OSError) as error:  # for example, a full disk: the next time may succeed
                log.error("collection failed: %s", error)
            else:
                on_collection(done)
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


def _batches(store: VaultStore, threshold: datetime) -> Iterator[list[Digest]]:
    after = ""
    while True:
        row = blob_rows.c
        query = select(row.digest).where(_is_free(threshold), row.digest > after).order_by(row.digest).limit(_BATCH)
        with store.database.read_snapshot() as connection:
            found = list(connection.scalars(query))
        if not found:
            return
        yield [Digest(hex) for hex in found]
        after = found[-1]


def _delete_rows(store: VaultStore, candidates: list[Digest], threshold: datetime) -> dict[Digest, int]:
    """Delete the rows of the candidates that are still free. Return their sizes.

    The same thread writes pins, so none can come between the check and the deletion.
    """
    hexes = [digest.hex for digest in candidates]

    def work(connection: Connection) -> dict[Digest, int]:
        free = select(blob_rows.c.digest, blob_rows.c.size).where(blob_rows.c.digest.in_(hexes), _is_free(threshold))
        found = {row.digest: row.size for row in connection.execute(free)}
        for table in (blob_rows, verdict_rows):
            connection.execute(delete(table).where(table.c.digest.in_(list(found))))
        return {Digest(hex): size for hex, size in found.items()}

    return store.database.write(work)


def _is_free(threshold: datetime) -> ColumnElement[bool]:
    """Condition: the blob has no pin and its lease expired before `threshold`."""
    pinned = exists().where(pin_rows.c.digest == blob_rows.c.digest)
    return (blob_rows.c.leased_until <= threshold) & ~pinned
