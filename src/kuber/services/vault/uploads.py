"""Uploads that go on where they were cut, also after a restart of the vault."""

import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select, update

from kuber.domain.blob import Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    KnowledgeNotFoundError,
    KUberError,
    RequestRejectedError,
    ServiceError,
)
from kuber.services.vault.blob_writer import check_bytes, write_hashed
from kuber.services.vault.filesystem import start_syncing, unwritable, write_all
from kuber.services.vault.quota import check_room
from kuber.services.vault.schema import upload_rows
from kuber.services.vault.storage import Piece
from kuber.services.vault.store import VaultStore

if TYPE_CHECKING:
    from kuber.services.vault.presigned import PresignedUrls

EXPIRY = timedelta(days=1)  # without a byte

log = logging.getLogger(__name__)


class Uploads:
    """The uploads under way in a vault. Safe to use from several threads.

    What has come is in `uploads/<id>`, so its length is the offset to go on from. At start what has no row, or no
    file, is dropped. Where other vaults share the index, a row without a file may be theirs: it stays, as long as
    uploads are kept, and what was put into the bucket for it can be fetched here as well.
    """

    def __init__(
        self, store: VaultStore, *, expiry: timedelta = EXPIRY, direct: "PresignedUrls | None" = None
    ) -> None:
        """`direct` lets the bytes go to the store's bucket beside the vault."""
        self._store = store
        self._direct = direct
        self._expiry = expiry
        self._folder = store.folder / "uploads"
        self._gate = threading.Lock()
        self._parts: dict[str, UploadSession] = {}
        try:
            self._folder.mkdir(exist_ok=True)
            self._load()
        except OSError as error:
            raise ServiceError(f"The vault's folder {self._folder} cannot be used: {error.strerror}.") from None

    def begin(self, artifact: Artifact, *, owner: str | None = None, direct: bool = False) -> Upload:
        """Announce a blob of `owner`'s. Where the vault has it already, its lease is renewed and nothing is left to
        send. InsufficientStorageError when it would be more than the owner may hold.

        With `direct` it is told where the bytes may be put instead, if this vault has such a place.
        """
        if self._store.renew(artifact):
            return Upload(id=None, digest=artifact.digest, size=artifact.size, offset=artifact.size)
        id = secrets.token_hex(16)
        path = self._folder / id
        row = {"id": id, "digest": artifact.digest.hex, "size": artifact.size, "begun_at": self._store.clock()}
        part = UploadSession(id, path, artifact, owner)
        try:
            path.touch(exist_ok=False)
        except OSError as error:
            raise unwritable(error) from None
        with self._gate:
            self._parts[id] = part

        def work(connection: Connection) -> None:
            check_room(connection, artifact, owner=owner, quota=self._store.quota)
            connection.execute(insert(upload_rows), {**row, "owner": owner})

        try:
            self._store.database.write(work)
        except KUberError:
            self._forget(part)
            raise
        told = part.told()
        return replace(told, direct=self._direct.upload_url(id)) if direct and self._direct is not None else told

    @property
    def under_way(self) -> int:
        """How many there are."""
        return len(self._parts)

    def upload(self, id: str) -> Upload:
        """How far an upload has come; KnowledgeNotFoundError when there is none."""
        return self._part(id).told()

    def enter(self, id: str, offset: int) -> "AppendLease":
        """The right to append to an upload from `offset` on, which ends the right of whoever had it.

        A sender whose connection stalled comes back before the vault has noticed, so the later one counts. Raises
        ConflictError unless exactly `offset` bytes have come.
        """
        return self._part(id).enter(offset)

    def complete(self, turn: "AppendLease") -> tuple[Artifact, bool] | None:
        """Store the blob if all of it has come: the artifact, and whether it is new; None while bytes are missing.

        Raises CorruptKnowledgeError when the bytes are others than named; the upload is over then.
        """
        part = turn.part
        with part.writing(turn):
            if part.size < part.artifact.size:
                return None
            try:
                check_bytes(part.sha.hexdigest(), part.artifact.digest)
            except KUberError:
                self._drop(part)
                raise
            try:
                with part.path.open("rb+") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise unwritable(error) from None
            arrival = self._store.shelves.arrived(part.path)
            try:
                new = self._store.settle(arrival, part.artifact, upload=part.id, owner=part.owner)
            finally:
                arrival.discard()
            self._forget(part)
        return part.artifact, new

    def fetch(self, id: str) -> tuple[Artifact, bool]:
        """Store the blob that was put where `begin` told: the artifact, and whether it is new.

        Raises ConflictError when nothing was put there, and CorruptKnowledgeError when it is not what was announced;
        the upload is over then.
        """
        if self._direct is None:
            raise RequestRejectedError("This vault fetches nothing; send it the bytes of the upload.")
        part = self._parts.get(id) or self._of_others(id)
        with part.lock:
            part.check_going_on()
            try:
                arrival = self._direct.arrived(id, part.artifact)
            except CorruptKnowledgeError:
                self._drop(part)
                self._direct.drop(id)
                raise
            try:
                new = self._store.settle(arrival, part.artifact, upload=id, owner=part.owner)
            finally:
                arrival.discard()
            self._forget(part)
            self._direct.drop(id)
        return part.artifact, new

    def sweep(self) -> int:
        """Drop uploads of which no byte came for as long as they are kept: how many."""
        ended = self._store.clock() - self._expiry
        with self._gate:
            parts = list(self._parts.values())
        dropped = 0
        for part in parts:
            with part.lock:
                if not part.over and part.touched() <= ended:
                    self._drop(part)
                    dropped += 1
        if self._store.database.shared:
            dropped += self._drop_old_rows(ended - self._expiry)  # bytes may have come for as long again
        return dropped

    def _part(self, id: str) -> "UploadSession":
        part = self._parts.get(id)
        if part is None:
            raise _unknown(id)
        return part

    def _load(self) -> None:
        with self._store.database.read_snapshot() as connection:
            rows = connection.execute(select(upload_rows)).all()
        files = {file.name for file in self._folder.iterdir()}
        for row in rows:
            part = UploadSession(
                row.id, self._folder / row.id, Artifact(digest=Digest(row.digest), size=row.size), row.owner
            )
            if row.id in files:
                self._parts[row.id] = part
            elif not self._store.database.shared:
                self._drop(part)
        for name in sorted(files - self._parts.keys()):
            log.warning("removed %s, left by a crash", name)
            (self._folder / name).unlink(missing_ok=True)

    def _of_others(self, id: str) -> "UploadSession":
        """An upload that another vault began; KnowledgeNotFoundError when there is none."""
        with self._store.database.read_snapshot() as connection:
            row = connection.execute(select(upload_rows).where(upload_rows.c.id == id)).one_or_none()
        if row is None:
            raise _unknown(id)
        return UploadSession(id, self._folder / id, Artifact(digest=Digest(row.digest), size=row.size), row.owner)

    def _drop_old_rows(self, ended: datetime) -> int:
        """Drop rows of vaults that did not come back: how many. Ours are told to be under way still."""
        mine, now = list(self._parts), self._store.clock()
        old = delete(upload_rows).where(upload_rows.c.begun_at <= ended, upload_rows.c.id.not_in(mine))
        fresh = update(upload_rows).where(upload_rows.c.id.in_(mine)).values(begun_at=now)

        def work(connection: Connection) -> int:
            connection.execute(fresh)
            return connection.execute(old).rowcount

        return self._store.database.write(work)

    def _drop(self, part: "UploadSession") -> None:
        """Row first, then the file: what is left of a crash between them is a file without a row."""
        gone = delete(upload_rows).where(upload_rows.c.id == part.id)
        self._store.database.write(lambda connection: connection.execute(gone))
        self._forget(part)

    def _forget(self, part: "UploadSession") -> None:
        with self._gate:
            self._parts.pop(part.id, None)
        part.over = True
        part.path.unlink(missing_ok=True)


class UploadSession:
    """What has come of one upload. Its lock is held for one step at a time, never for a whole request."""

    def __init__(self, id: str, path: Path, artifact: Artifact, owner: str | None) -> None:
        self.id = id
        self.owner = owner
        self.path = path
        self.artifact = artifact
        self.lock = threading.RLock()
        self.over = False  # stored or dropped
        self.sha = hashlib.sha256()
        self.size = 0  # bytes that `sha` has seen
        self._turn: AppendLease | None = None

    def told(self) -> Upload:
        """How far it has come."""
        with self.lock:
            self.check_going_on()
            return Upload(
                id=self.id, digest=self.artifact.digest, size=self.artifact.size, offset=self.path.stat().st_size
            )

    def touched(self) -> datetime:
        """When the last byte came."""
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    def enter(self, offset: int) -> "AppendLease":
        """As Uploads.enter."""
        with self.lock:
            self.check_going_on()
            have = self.path.stat().st_size
            if offset != have:
                raise ConflictError(f"The upload has {have} bytes: go on from there, not from {offset}.")
            if self.size != have:
                self._hash_again()
            self._turn = AppendLease(self)
            return self._turn

    @contextmanager
    def writing(self, turn: "AppendLease") -> Iterator[None]:
        """Hold the part for one step of `turn`; ConflictError when another has come since."""
        with self.lock:
            self.check_going_on()
            if self._turn is not turn:
                raise ConflictError("A later request goes on with this upload; this one ends here.")
            yield

    def append(self, piece: Piece) -> None:
        """Write these bytes to the end. What the disk does not take leaves no trace."""
        if self.size + len(piece) > self.artifact.size:
            raise RequestRejectedError(f"The upload was announced with {self.artifact.size} bytes; send no more.")
        try:
            with self.path.open("ab", buffering=0) as file:
                sha = self.sha.copy()
                try:
                    write_hashed(partial(write_all, file), piece, sha)
                except OSError:
                    file.truncate(self.size)
                    raise
                start_syncing(file, self.size, self.size + len(piece))
        except OSError as error:
            raise unwritable(error) from None
        self.sha = sha
        self.size += len(piece)

    def _hash_again(self) -> None:
        """A restart has forgotten the hash of what had come."""
        with self.path.open("rb") as file:
            self.sha = hashlib.file_digest(file, "sha256")
            self.size = file.tell()

    def check_going_on(self) -> None:
        if self.over:
            raise _unknown(self.id)


class AppendLease:
    """The right of one request to append to a part, until another one takes it."""

    def __init__(self, part: UploadSession) -> None:
        self.part = part

    def write(self, piece: Piece) -> None:
        """Append these bytes; ConflictError when another request goes on instead."""
        with self.part.writing(self):
            self.part.append(piece)


def _unknown(id: str) -> KnowledgeNotFoundError:
    return KnowledgeNotFoundError(f"The vault has no upload {id[:100]!r} under way; begin it again.")
