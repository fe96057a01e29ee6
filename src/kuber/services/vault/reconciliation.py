"""Reconciliation at start: make the index of a vault match its storage."""

import logging
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import ServiceError
from kuber.services.vault.schema import blob_rows, storage_rows
from kuber.services.vault.storage import ID_NAME

if TYPE_CHECKING:
    from kuber.services.vault.store import VaultStore

_BATCH = 64  # blobs that are locked together

log = logging.getLogger(__name__)


def check_storage_id(store: "VaultStore") -> None:
    """Raise ServiceError when the index belongs to another storage: reconciling would delete all its rows."""
    with store.database.lock("storage", "id"):
        with store.database.read_snapshot() as connection:
            known: str | None = connection.scalar(select(storage_rows.c.mark))
        found = store.storage.storage_id()
        if known is None:
            if found is None:
                found = secrets.token_hex(16)
                store.storage.set_storage_id(found)
            store.database.write(lambda connection: connection.execute(insert(storage_rows), {"mark": found}))
        elif found != known:
            raise ServiceError(
                f"The index belongs to another storage: its mark is {known}, and here it is {found or 'none'}. "
                f"Name that storage, or another database; if the blobs were moved here, write it to {ID_NAME!r}."
            )


def reconcile(store: "VaultStore") -> None:
    """Drop the rows of lost blobs, and index blobs without a row. Only blobs that the index does not know are read.

    Another vault may be changing both: blobs that seem lost or unknown are checked again under their lock.
    """
    with store.database.read_snapshot() as connection:
        rows = connection.execute(select(blob_rows.c.digest, blob_rows.c.size))
        indexed = {Digest(row.digest): row.size for row in rows}
    stored = store.storage.list_sizes()
    matching = {digest for digest, size in stored.items() if indexed.get(digest) == size}
    lost = sorted(indexed.keys() - matching)
    dropped = sum(_drop_lost(store, lost[start : start + _BATCH]) for start in range(0, len(lost), _BATCH))
    if dropped:
        log.warning("%d blobs are lost or damaged", dropped)
    for digest in sorted(stored.keys() - matching):
        _adopt_unknown(store, digest)


def _drop_lost(store: "VaultStore", digests: list[Digest]) -> int:
    """Delete the rows of blobs whose bytes are missing or have another size. Return how many."""
    with store.lock(*digests):
        sizes = {digest.hex: stat.size for digest in digests if (stat := store.storage.stat(digest)) is not None}

        def work(connection: Connection) -> int:
            rows_of_digests = blob_rows.c.digest.in_([digest.hex for digest in digests])
            rows = connection.execute(select(blob_rows.c.digest, blob_rows.c.size).where(rows_of_digests))
            lost = [row.digest for row in rows if sizes.get(row.digest) != row.size]
            connection.execute(delete(blob_rows).where(blob_rows.c.digest.in_(lost)))
            return len(lost)

        return store.database.write(work)


def _adopt_unknown(store: "VaultStore", digest: Digest) -> None:
    """Index a blob without a row if its bytes have its digest; delete it otherwise."""
    with store.lock(digest):
        found = store.storage.hash(digest) if store.size(digest) is None else None
        if found is not None and found.stat.size and found.hex == digest.hex:
            store.index(Artifact(digest=digest, size=found.stat.size))
        elif found is not None:
            log.warning("deleted blob %s, whose bytes have another digest", digest)
            store.storage.delete(digest)
