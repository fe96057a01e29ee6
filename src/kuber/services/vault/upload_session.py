"""Session of one resumable upload: its received bytes, and the right to append to them."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kuber.domain.blob import Upload
from kuber.domain.knowledge import Artifact
from kuber.errors import ConflictError, KnowledgeNotFoundError, RequestRejectedError
from kuber.files import write_all
from kuber.services.vault.blob_writer import write_hashed
from kuber.services.vault.filesystem import begin_sync, write_error
from kuber.services.vault.free_disk import FreeDisk
from kuber.services.vault.storage import Piece
from kuber.services.vault.total_quota import TotalQuota


class UploadSession:
    """Received bytes of one upload. Its lock is held for one step at a time, never for a whole request."""

    def __init__(
        self, id: str, path: Path, artifact: Artifact, owner: str | None, disk: FreeDisk, total: TotalQuota
    ) -> None:
        self.id = id
        self._disk = disk
        self._total = total
        self.owner = owner
        self.path = path
        self.artifact = artifact
        self.lock = threading.RLock()
        self.closed = False  # stored or dropped
        self.sha = hashlib.sha256()
        self.size = 0  # bytes in `sha`
        self._lease: AppendLease | None = None

    def is_of(self, artifact: Artifact, owner: str) -> bool:
        """Return whether it is an unfinished upload of this blob by this owner."""
        return not self.closed and self.artifact == artifact and self.owner == owner

    def status(self) -> Upload:
        """Return how much was received."""
        with self.lock:
            self.require_open()
            received = self.path.stat().st_size
            return Upload(id=self.id, digest=self.artifact.digest, size=self.artifact.size, offset=received)

    def last_received(self) -> datetime:
        """Return the time at which the last byte was received."""
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    def begin_append(self, offset: int) -> "AppendLease":
        """Return the right to append at `offset`; see Uploads.begin_append."""
        with self.lock:
            self.require_open()
            received = self.path.stat().st_size
            if offset != received:
                raise ConflictError(f"The upload has {received} bytes: resume from there, not from {offset}.")
            if self.size != received:  # a restart has lost the hash
                with self.path.open("rb") as file:
                    self.sha = hashlib.file_digest(file, "sha256")
                    self.size = file.tell()
            self._lease = AppendLease(self)
            return self._lease

    @contextmanager
    def require(self, lease: "AppendLease") -> Iterator[None]:
        """Hold the lock for one step. ConflictError when a later request has taken the lease."""
        with self.lock:
            self.require_open()
            if self._lease is not lease:
                raise ConflictError("A later request has resumed this upload; this one ends here.")
            yield

    def require_open(self) -> None:
        """Raise KnowledgeNotFoundError when the upload is stored or dropped."""
        if self.closed:
            raise unknown_upload(self.id)

    def append(self, piece: Piece) -> None:
        """Append bytes. A failing write leaves no trace."""
        if self.size + len(piece) > self.artifact.size:
            raise RequestRejectedError(f"The upload was announced with {self.artifact.size} bytes; send no more.")
        self._disk.check(len(piece))
        if self.owner is not None:
            self._total.check(len(piece))
        try:
            with self.path.open("ab", buffering=0) as file:
                sha = self.sha.copy()
                try:
                    write_hashed(partial(write_all, file), piece, sha)
                except OSError:
                    file.truncate(self.size)
                    raise
                begin_sync(file, self.size, self.size + len(piece))
        except OSError as error:
            raise write_error(error) from None
        self.sha = sha
        self.size += len(piece)
        self._total.add(len(piece))


class AppendLease:
    """Right of one request to append to an upload, until a later request takes it."""

    def __init__(self, session: UploadSession) -> None:
        self.session = session

    def write(self, piece: Piece) -> None:
        """Append bytes. ConflictError when a later request has taken the lease."""
        with self.session.require(self):
            self.session.append(piece)


def unknown_upload(id: str) -> KnowledgeNotFoundError:
    """Return the error for an upload that is stored, dropped or was never begun."""
    return KnowledgeNotFoundError(f"The vault has no upload {id[:100]!r} in progress; begin it again.")
