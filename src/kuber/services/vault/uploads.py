"""Resumable uploads, which survive a restart of the vault."""

import logging
import os
import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Row, delete, insert, select, update

from kuber.domain.blob import Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import (
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    KUberError,
    RequestRejectedError,
    ServiceError,
)
from kuber.services.vault.blob_writer import check_digest
from kuber.services.vault.filesystem import is_own_file, write_error
from kuber.services.vault.quota import check_announcement
from kuber.services.vault.schema import upload_rows
from kuber.services.vault.store import VaultStore
from kuber.services.vault.upload_session import AppendLease, UploadSession, unknown_upload

if TYPE_CHECKING:
    from kuber.services.vault.presigned import PresignedUrls

EXPIRY = timedelta(days=1)  # since the last byte was received
IDLE = timedelta(minutes=10)  # after which an upload makes room for a new one of its owner

log = logging.getLogger(__name__)


class Uploads:
    """Uploads in progress. Safe to use from several threads.

    Received bytes are in `uploads/<id>`, so the length of that file is the offset to resume from. At start, uploads
    without a row or without a file are dropped. A row without a file may belong to another vault on the same index:
    it stays until it expires, and what was sent to the bucket for it can be completed by this vault too.
    """

    def __init__(
        self, store: VaultStore, *, expiry: timedelta = EXPIRY, presigned: "PresignedUrls | None" = None
    ) -> None:
        """With `presigned`, clients may send the bytes directly to the store's bucket."""
        self._store = store
        self._presigned = presigned
        self._expiry = expiry
        self._folder = store.folder / "uploads"
        self._lock = threading.Lock()
        self._sessions: dict[str, UploadSession] = {}
        try:
            self._folder.mkdir(exist_ok=True)
            self._load()
        except OSError as error:
            raise ServiceError(f"The vault's folder {self._folder} cannot be used: {error.strerror}.") from None

    def begin(self, artifact: Artifact, *, owner: str | None = None, direct: bool = False) -> Upload:
        """Announce a blob. If the vault has it already, renew its lease; then nothing is left to send.

        An owner who has announced it before continues that upload. With `direct`, the result names a URL of the
        bucket, if this vault has one. Idle uploads of the owner make room. Raises InsufficientStorageError when the
        blob would exceed the owner's quota all the same, or the owner has too many unfinished uploads.
        """
        while not self._store.renew_lease(artifact):
            session = self._session_of_owner(artifact, owner) or self._begin(artifact, owner)
            try:
                upload = session.status()
            except KnowledgeNotFoundError:  # another request has just completed it
                continue
            if direct and self._presigned is not None:
                return replace(upload, direct=self._presigned.upload_url(session.id))
            return upload
        return Upload(id=None, digest=artifact.digest, size=artifact.size, offset=artifact.size)

    def _session_of_owner(self, artifact: Artifact, owner: str | None) -> UploadSession | None:
        """Return the unfinished upload of this blob by its owner, if there is one at this vault."""
        if owner is None:
            return None
        with self._lock:
            return next((found for found in self._sessions.values() if found.is_of(artifact, owner)), None)

    def _begin(self, artifact: Artifact, owner: str | None) -> UploadSession:
        """Begin an upload, unless a concurrent request has begun it."""
        self._store.disk.check(0)
        id = secrets.token_hex(16)
        row = {"id": id, "digest": artifact.digest.hex, "size": artifact.size, "begun_at": self._store.clock()}
        session = UploadSession(id, self._folder / id, artifact, owner, self._store.disk, self._store.total)

        def work(connection: Connection) -> UploadSession:
            earlier = self._session_of_owner(artifact, owner)
            if earlier is not None:
                return earlier
            if owner is not None:  # an earlier upload of the same blob, to another vault on this index, has ended
                same = upload_rows.c.digest == artifact.digest.hex, upload_rows.c.size == artifact.size
                connection.execute(delete(upload_rows).where(upload_rows.c.owner == owner, *same))
            check_announcement(connection, artifact, owner=owner, store=self._store)
            connection.execute(insert(upload_rows), {**row, "owner": owner})
            try:
                session.path.touch(exist_ok=False)
            except OSError as error:
                raise write_error(error) from None
            with self._lock:
                self._sessions[id] = session
            return session

        while True:
            try:
                return self._store.database.write(work)
            except InsufficientStorageError:
                fits = not self._store.quota or artifact.size <= self._store.quota
                if owner is None or not fits or not self._drop_idle(owner):
                    self._forget(session)
                    raise
            except KUberError:
                self._forget(session)
                raise

    def _drop_idle(self, owner: str) -> bool:
        """Drop the upload of an owner that has received nothing for the longest time, if it is idle."""
        threshold = self._store.clock() - IDLE
        with self._lock:
            idle = [found for found in self._sessions.values() if found.owner == owner]
        times = {found.id: found.last_received() for found in idle if found.path.exists()}
        for session in sorted((found for found in idle if found.id in times), key=lambda found: times[found.id]):
            with session.lock:
                if times[session.id] <= threshold and not session.closed:
                    self._drop(session)
                    return True
        return False

    @property
    def in_progress(self) -> int:
        """Number of uploads in progress."""
        return len(self._sessions)

    def bytes_under_way(self) -> tuple[int, int]:
        """Return how many bytes of the uploads in progress were received, and how many were announced."""
        with self._lock:
            sessions = list(self._sessions.values())
        received = 0
        for session in sessions:
            with suppress(OSError):  # it has just ended
                received += session.path.stat().st_size
        return received, sum(session.artifact.size for session in sessions)

    def status(self, id: str) -> Upload:
        """Return the state of an upload. KnowledgeNotFoundError when it is unknown."""
        return self._session(id).status()

    def begin_append(self, id: str, offset: int) -> AppendLease:
        """Return the right to append to an upload at `offset`; it ends the right of any earlier request.

        A client whose connection stalled comes back before the vault has noticed, so the later request counts.
        Raises ConflictError unless the upload has exactly `offset` bytes.
        """
        return self._session(id).begin_append(offset)

    def complete(self, lease: AppendLease) -> tuple[Artifact, bool] | None:
        """Store the blob once all bytes were received: the artifact, and whether it is new; None before.

        Raises CorruptKnowledgeError when the bytes have another digest; the upload is then dropped.
        """
        session = lease.session
        with session.require(lease):
            if session.size < session.artifact.size:
                return None
            try:
                check_digest(session.sha.hexdigest(), session.artifact.digest)
            except KUberError:
                self._drop(session)
                raise
            try:
                with session.path.open("rb+") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise write_error(error) from None
            blob = self._store.storage.adopt(session.path)
            new = self._store.commit_staged(blob, session.artifact, owner=session.owner, upload=session.id)
            self._forget(session)
        return session.artifact, new

    def complete_direct(self, id: str) -> tuple[Artifact, bool]:
        """Store the blob that was sent to the URL of an upload: the artifact, and whether it is new.

        Raises ConflictError when nothing was sent there, CorruptKnowledgeError when it is not what was announced; the
        upload is then dropped.
        """
        if self._presigned is None:
            raise RequestRejectedError("This vault has no direct uploads; send it the bytes of the upload.")
        session = self._sessions.get(id) or self._load_from_index(id)
        with session.lock:
            session.require_open()
            try:
                blob = self._presigned.adopt(id, session.artifact)
            except CorruptKnowledgeError:
                self._drop(session)
                self._presigned.discard(id)
                raise
            if session.owner is not None:
                self._store.total.check(session.artifact.size)
            new = self._store.commit_staged(blob, session.artifact, owner=session.owner, upload=id)
            if new:
                self._store.total.add(session.artifact.size)
            self._forget(session)
            self._presigned.discard(id)
        return session.artifact, new

    def purge_expired(self) -> int:
        """Drop uploads that have received nothing for the expiry time. Return how many."""
        threshold = self._store.clock() - self._expiry
        with self._lock:
            sessions = list(self._sessions.values())
        dropped = 0
        for session in sessions:
            with session.lock:
                if not session.closed and session.last_received() <= threshold:
                    self._drop(session)
                    dropped += 1
        if self._store.database.shared:
            dropped += self._drop_old_rows(threshold - self._expiry)  # another vault may have received bytes since
        return dropped

    def _session(self, id: str) -> UploadSession:
        session = self._sessions.get(id)
        if session is None:
            raise unknown_upload(id)
        return session

    def _load(self) -> None:
        with self._store.database.read_snapshot() as connection:
            rows = connection.execute(select(upload_rows)).all()
        files = {file.name for file in self._folder.iterdir() if is_own_file(file)}
        for row in rows:
            session = self._session_of(row)
            if row.id in files:
                self._sessions[row.id] = session
                self._drop_repeated(session)
            elif not self._store.database.shared:
                self._drop(session)
        for file in sorted(filter(is_own_file, self._folder.iterdir())):
            if file.name not in self._sessions:
                log.warning("deleted %s, left by a crash", file.name)
                file.unlink(missing_ok=True)

    def _drop_repeated(self, session: UploadSession) -> None:
        """Keep only the longest upload of one blob by one owner; earlier versions began several."""
        if session.owner is None:
            return
        same = [found for found in self._sessions.values() if found.is_of(session.artifact, session.owner)]
        for repeated in sorted(same, key=lambda found: found.path.stat().st_size)[:-1]:
            self._drop(repeated)

    def _load_from_index(self, id: str) -> UploadSession:
        """Return an upload that another vault began. KnowledgeNotFoundError when it is unknown."""
        with self._store.database.read_snapshot() as connection:
            row = connection.execute(select(upload_rows).where(upload_rows.c.id == id)).one_or_none()
        if row is None:
            raise unknown_upload(id)
        return self._session_of(row)

    def _session_of(self, row: Row[tuple[object, ...]]) -> UploadSession:
        artifact = Artifact(digest=Digest(row.digest), size=row.size)
        return UploadSession(row.id, self._folder / row.id, artifact, row.owner, self._store.disk, self._store.total)

    def _drop_old_rows(self, threshold: datetime) -> int:
        """Drop rows of vaults that did not come back, and refresh those of this one. Return how many were dropped."""
        mine, now = list(self._sessions), self._store.clock()
        old = delete(upload_rows).where(upload_rows.c.begun_at <= threshold, upload_rows.c.id.not_in(mine))
        fresh = update(upload_rows).where(upload_rows.c.id.in_(mine)).values(begun_at=now)

        def work(connection: Connection) -> int:
            connection.execute(fresh)
            return connection.execute(old).rowcount

        return self._store.database.write(work)

    def _drop(self, session: UploadSession) -> None:
        """Delete the row, then the file: a crash between them leaves a file without a row."""
        statement = delete(upload_rows).where(upload_rows.c.id == session.id)
        self._store.database.write(lambda connection: connection.execute(statement))
        self._forget(session)

    def _forget(self, session: UploadSession) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)
        session.closed = True
        session.path.unlink(missing_ok=True)
