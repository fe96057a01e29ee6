"""Quota of an entity: bytes of the blobs that it owns in a vault, has announced, or is sending."""

import threading
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, InsufficientStorageError, ServiceUnavailableError
from kuber.services.vault.schema import blob_rows, upload_rows

if TYPE_CHECKING:
    from kuber.services.vault.store import VaultStore

MAX_UPLOADS = 32  # unfinished, of one entity
FEWEST_BLOBS = 256  # that an entity with a quota may have in any case
BLOCK = 4096  # bytes of disk that a small file takes: more blobs than blocks in the quota are refused
MAX_RECEIVING = 32  # blobs that one entity may send at a time, each in one request


def check_quota(connection: Connection, *artifacts: Artifact, owner: str | None, quota: int) -> None:
    """Raise InsufficientStorageError when new blobs, whose bytes are here, would exceed the owner's quota in bytes.

    Blobs without an owner are unlimited, and so is a quota of 0.
    """
    if owner is None or not quota or not artifacts:
        return
    used = bytes_of_owner(connection, owner, except_uploads_of=[artifact.digest.hex for artifact in artifacts])
    size = sum(artifact.size for artifact in artifacts)
    if used + size > quota:
        raise exceeded(quota, used, size)
    count = connection.scalar(select(func.count()).where(blob_rows.c.owner == owner)) or 0
    most = max(FEWEST_BLOBS, quota // BLOCK)
    if count + len(artifacts) > most:
        raise InsufficientStorageError(
            f"The vault keeps at most {most} blobs per entity, as many as fit into its quota of {quota} bytes; "
            "withdraw knowledge that is no longer needed."
        )


def check_announcement(connection: Connection, artifact: Artifact, *, owner: str | None, store: "VaultStore") -> None:
    """Raise InsufficientStorageError when the owner may not announce this blob: too many bytes, or uploads.

    What it has announced counts for its own quota alone: towards that of all entities, bytes count as they arrive.
    """
    if owner is None:
        return
    count = connection.scalar(select(func.count()).where(upload_rows.c.owner == owner)) or 0
    if count >= MAX_UPLOADS:
        raise InsufficientStorageError(
            f"You have {count} unfinished uploads in the vault, which keeps at most {MAX_UPLOADS} of an entity; "
            "complete them, or wait until they expire."
        )
    if store.quota:
        used = bytes_of_owner(connection, owner) + store.receiving.bytes_of(owner)
        if used + artifact.size > store.quota:
            raise exceeded(store.quota, used, artifact.size)
    store.total.check(artifact.size, connection=connection)


def bytes_of_owner(connection: Connection, owner: str, *, except_uploads_of: Collection[str] = ()) -> int:
    """Return the bytes of an entity's blobs and of its announcements, except those of these digests."""
    stored = select(func.sum(blob_rows.c.size)).where(blob_rows.c.owner == owner)
    announced = select(func.sum(upload_rows.c.size)).where(
        upload_rows.c.owner == owner, upload_rows.c.digest.not_in(except_uploads_of)
    )
    return int(connection.scalar(stored) or 0) + int(connection.scalar(announced) or 0)


def exceeded(quota: int, used: int, size: int) -> InsufficientStorageError:
    """Return the error of an owner with `used` bytes who sends `size` more."""
    return InsufficientStorageError(
        f"The vault keeps at most {quota} bytes per entity and has {used} of yours, so {size} more are "
        "too many; withdraw knowledge that is no longer needed."
    )


class Receiving:
    """Blobs that entities are sending, each in one request: their bytes count from when they arrive.

    Safe to use from several threads.
    """

    def __init__(self, store: "VaultStore") -> None:
        self._store = store
        self._lock = threading.Lock()
        self.bytes = 0  # of all owners
        self._bytes: Counter[str] = Counter()  # by owner
        self._blobs: Counter[str] = Counter()  # by owner

    def bytes_of(self, owner: str) -> int:
        """Return the bytes that an entity is sending."""
        return self._bytes[owner]

    def begin(self, digest: Digest, size: int = 0, *, owner: str | None) -> "Reservation":
        """Reserve room for a blob until the reservation is closed. `size` is what is known of it beforehand, or 0.

        A blob that is stored may be sent again without regard to the quota, but is no longer than the stored one.
        Raises InsufficientStorageError when the size exceeds the owner's quota, ServiceUnavailableError when the
        owner sends too many at a time, CorruptKnowledgeError when the stored blob has another size.
        """
        stored = self._store.size(digest)
        reservation = Reservation(self, digest, owner, stored)
        if stored is not None and size not in (0, stored):
            raise _other_size(digest, stored)
        if owner is not None:
            self._enter(owner)
        try:
            reservation.grow(size)
        except BaseException:
            reservation.close()
            raise
        return reservation

    def _enter(self, owner: str) -> None:
        with self._lock:
            if self._blobs[owner] >= MAX_RECEIVING:
                raise ServiceUnavailableError(
                    f"The vault receives at most {MAX_RECEIVING} blobs of an entity at a time; try again.",
                    retry_after=1,
                )
            self._blobs[owner] += 1

    def leave(self, owner: str, size: int) -> None:
        """End the reservation of an owner, with so many bytes."""
        with self._lock:
            self.bytes -= size
            self._bytes[owner] -= size
            self._blobs[owner] -= 1
            if not self._blobs[owner]:
                del self._blobs[owner], self._bytes[owner]

    def add(self, owner: str, size: int) -> None:
        """Count bytes of an owner. InsufficientStorageError when they exceed the quota."""
        quota = self._store.quota
        if quota:
            with self._store.database.read_snapshot() as connection:
                used = bytes_of_owner(connection, owner)
        with self._lock:
            if quota and used + self._bytes[owner] + size > quota:
                raise exceeded(quota, used + self._bytes[owner], size)
            self._store.total.check(size)
            self._bytes[owner] += size
            self.bytes += size


class Reservation:
    """Room for one blob that is being sent."""

    def __init__(self, receiving: Receiving, digest: Digest, owner: str | None, stored: int | None) -> None:
        self._receiving = receiving
        self._digest = digest
        self._owner = owner
        self._stored = stored  # size of the blob, if it is stored already
        self._received = 0
        self._reserved = 0
        self._closed = False

    def grow(self, size: int) -> None:
        """Reserve up to this size in all. InsufficientStorageError when the owner has no room for it."""
        if self._stored is not None:
            if size > self._stored:
                raise _other_size(self._digest, self._stored)
        elif self._owner is not None and size > self._reserved:
            self._receiving.add(self._owner, size - self._reserved)
            self._reserved = size

    def receive(self, count: int) -> None:
        """Reserve room for this many bytes that have arrived."""
        self._received += count
        self.grow(self._received)

    def close(self) -> None:
        """End the reservation: the blob is indexed, or its bytes are deleted. Idempotent."""
        if self._owner is not None and not self._closed:
            self._closed = True
            self._receiving.leave(self._owner, self._reserved)


def _other_size(digest: Digest, stored: int) -> CorruptKnowledgeError:
    return CorruptKnowledgeError(f"Blob {digest} has {stored} bytes, not as many as are sent; send it again.")
