"""Blob storage in a folder: one file per blob, durable before it gets its name."""

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import InsufficientStorageError, KnowledgeNotFoundError, ServiceError, ServiceUnavailableError
from kuber.files import write_all
from kuber.services.http.exhaustion import exhausted_resource
from kuber.services.vault.free_disk import FreeDisk
from kuber.services.vault.storage import ID_NAME, BlobReader, BlobStat, HashedBlob, Piece

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota exceeded, or the limit on one file
_SYNC_BYTES = 8 << 20  # writing to disk begins each time so many bytes have been written
_NAME = re.compile(r"[0-9a-f]{64}")
_RANDOM = re.compile(r"[0-9a-f]{32}")  # as `secrets.token_hex(16)` makes it

INDEX = "vault.sqlite"  # file of the index, in the vault's folder

log = logging.getLogger(__name__)


class FilesystemStorage:
    """BlobStorage in the folders `blobs/`, `incoming/` and `quarantine/` under `folder`.

    Incomplete blobs of a crashed process, known by their names, are deleted at start: no other process writes there.
    Raises OSError when the folder cannot be used.
    """

    def __init__(self, folder: Path, *, disk: FreeDisk | None = None) -> None:
        """Without `disk`, the disk may be filled."""
        self.folder = folder
        self.disk = disk
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._open_writers: set[str] = set()  # names of files in incoming/
        for own in (self._blobs, self._incoming):
            own.mkdir(exist_ok=True)
            _require_own(own)
        self.purge_incomplete()

    def path(self, digest: Digest) -> Path:
        """Return the path of a blob, stored or not."""
        return self._blobs / digest.hex[:2] / digest.hex[2:4] / digest.hex

    def storage_id(self) -> str | None:
        """Return the id of this folder, None when it has none yet."""
        file = self.folder / ID_NAME
        if not file.exists():
            return None
        try:
            found = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            found = ""
        if not found.isalnum():
            raise ServiceError(
                f"{file} does not hold the id of this storage; restore the file, or write the id to it that the "
                "index has in its table shelves."
            )
        return found

    def set_storage_id(self, id: str) -> None:
        """Write the id into the folder."""
        (self.folder / ID_NAME).write_text(f"{id}\n", encoding="utf-8")
        sync_folder(self.folder)

    def create(self) -> "FileBlobWriter":
        """Open a writer for a new blob, in `incoming/`."""
        return FileBlobWriter(self, self._incoming / secrets.token_hex(16), self._open_writers)

    def put_all(self, blobs: Mapping[Digest, bytes]) -> None:
        """Store small blobs under their digests, replacing what is there; durable when it returns.

        Each step is done for all before the next one, so that the file system syncs many in one go.
        """
        with contextlib.ExitStack() as stack:
            writers = {}
            for digest, data in blobs.items():
                writers[digest] = writer = self.create()
                stack.callback(writer.cancel)
                writer.write(data)
            for writer in writers.values():
                writer.begin_sync()
            for writer in writers.values():
                writer.finish()
            try:
                make_folders({self.path(digest).parent for digest in blobs})
                for digest, writer in writers.items():
                    writer.move(digest)
                for folder in {self.path(digest).parent for digest in blobs}:
                    sync_folder(folder)
            except OSError as error:
                raise write_error(error) from None

    def adopt(self, file: Path) -> "StagedFile":
        """Stage a complete, durable file of the vault's own folder. A commit moves it."""
        return StagedFile(self, file)

    def open(self, artifact: Artifact) -> "FileBlobReader":
        """Open a blob for reading. KnowledgeNotFoundError when its file is missing."""
        try:
            return FileBlobReader(self.path(artifact.digest).open("rb"))
        except FileNotFoundError:
            raise KnowledgeNotFoundError(f"The vault has no blob {artifact.digest}.") from None
        except OSError as error:
            raise _read_error(artifact.digest, error) from None

    def stat(self, digest: Digest) -> BlobStat | None:
        """Return the size and the inode of a blob: one that is put again is another file."""
        try:
            return _blob_stat(self.path(digest).stat())
        except FileNotFoundError:
            return None

    def hash(self, digest: Digest) -> HashedBlob | None:
        """Read and hash a whole blob; None when it is missing."""
        try:
            with self.path(digest).open("rb") as file:
                stat = _blob_stat(os.fstat(file.fileno()))
                return HashedBlob(hashlib.file_digest(file, "sha256").hexdigest(), stat)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _read_error(digest, error) from None

    def delete(self, digest: Digest) -> None:
        """Delete a blob. Idempotent."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise ServiceError(f"The vault cannot delete blob {digest}: {error.strerror}.") from None

    def quarantine(self, digest: Digest) -> None:
        """Move the file of a damaged blob to `quarantine/`."""
        folder = self.folder / "quarantine"
        try:
            make_folder(folder)
            self.path(digest).replace(folder / digest.hex)
        except OSError as error:
            raise ServiceError(f"The vault cannot quarantine blob {digest}: {error.strerror}.") from None

    def list_sizes(self) -> dict[Digest, int]:
        """Return all blobs with their size in bytes. Ignore files whose name is not that of a blob."""
        sizes, foreign = {}, []
        for file in self._blobs.glob("*/*/*"):
            if _NAME.fullmatch(file.name) and file == self.path(Digest(file.name)) and file.is_file():
                sizes[Digest(file.name)] = file.stat().st_size
            else:
                foreign.append(file)
        if foreign:
            log.warning("%d files in %s are not blobs, such as %s", len(foreign), self._blobs, min(foreign))
        return sizes

    def purge_incomplete(self) -> int:
        """Delete the vault's files in `incoming/` that nobody is writing. Return how many."""
        named = [file for file in self._incoming.iterdir() if is_own_file(file)]
        abandoned = [file for file in named if file.name not in self._open_writers]
        for file in abandoned:
            log.warning("deleted %s, left by a crash", file.name)
            file.unlink(missing_ok=True)
        return len(abandoned)


class StagedFile:
    """StagedBlob in a file of the vault's folder that belongs to somebody else until it is committed."""

    def __init__(self, storage: FilesystemStorage, path: Path) -> None:
        self._storage = storage
        self._path = path
        self._committed: Path | None = None

    def commit(self, digest: Digest) -> None:
        """Move the file to the path of its digest, replacing the file there."""
        folder = self._storage.path(digest).parent
        try:
            make_folder(folder)
            self.move(digest)
            sync_folder(folder)
        except OSError as error:
            raise write_error(error) from None

    def move(self, digest: Digest) -> None:
        """Move the file to the path of its digest, whose folder exists and is to be synced afterwards."""
        target = self._storage.path(digest)
        self._path.replace(target)
        self._committed = target

    def rollback(self) -> None:
        """Move the file back."""
        assert self._committed is not None
        self._committed.replace(self._path)

    def cancel(self) -> None:
        """Do nothing: the file stays where it is."""


class FileBlobWriter(StagedFile):
    """BlobWriter to a file in `incoming/`, whose name is in `open_writers` meanwhile."""

    def __init__(self, storage: FilesystemStorage, path: Path, open_writers: set[str]) -> None:
        super().__init__(storage, path)
        self._open_writers = open_writers
        self._size = 0
        open_writers.add(path.name)
        try:
            self._file: BinaryIO = path.open("xb", buffering=0)
        except OSError as error:
            open_writers.discard(path.name)
            raise write_error(error) from None

    def write(self, piece: Piece) -> None:
        """Append bytes; large pieces are fastest."""
        if self._storage.disk is not None:
            self._storage.disk.check(len(piece))
        try:
            write_all(self._file, piece)
        except OSError as error:
            raise write_error(error) from None
        begin_sync(self._file, self._size, self._size + len(piece))
        self._size += len(piece)

    def begin_sync(self) -> None:
        """Let the system begin to write to disk what was written."""
        advise_written(self._file, 0, self._size)

    def finish(self) -> None:
        """Make what was written durable: from now on it survives a power cut."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise write_error(error) from None

    def cancel(self) -> None:
        """Delete the file unless it is committed. Idempotent."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._open_writers.discard(self._path.name)


class FileBlobReader(BlobReader):
    """BlobReader of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self._left = self.size

    def seek_range(self, first: int, last: int) -> None:
        """Restrict the following reads to the bytes from `first` to `last`, both included."""
        self._file.seek(first)
        self._left = last - first + 1

    def read(self, length: int = -1, /) -> bytes:
        """Return the next bytes, at most `length`; all that are left when negative; none at the end."""
        piece = self._file.read(self._left if length < 0 else min(length, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()


def _require_own(folder: Path) -> None:
    """Raise ServiceError when a folder is a link to that of another vault: this one would delete its blobs."""
    target = folder.resolve()
    if target.parent != folder.parent.resolve() and any((target.parent / name).exists() for name in (ID_NAME, INDEX)):
        raise ServiceError(f"{folder} is a link into the folder of another vault; give this one a folder of its own.")


def is_own_file(file: Path) -> bool:
    """Return whether a file in `incoming/` or `uploads/` has a name that the vault chose: no other is deleted."""
    return _RANDOM.fullmatch(file.name) is not None and not file.is_dir()


def begin_sync(file: BinaryIO, before: int, now: int) -> None:
    """Let the system begin to write to disk each time _SYNC_BYTES are full: the final fsync then takes less time."""
    start, end = before // _SYNC_BYTES * _SYNC_BYTES, now // _SYNC_BYTES * _SYNC_BYTES
    if end > start:
        advise_written(file, start, end)


def advise_written(file: BinaryIO, start: int, end: int) -> None:
    """Let the system begin to write these bytes to disk.

    The advice says that they are not needed in memory. They stay there: dirty pages are not dropped.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they survive a power cut."""
    make_folders({folder})


def make_folders(folders: Collection[Path]) -> None:
    """Create several folders in the same way."""
    missing = {folder for folder in folders if not folder.is_dir()}
    if not missing:
        return
    parents = {folder.parent for folder in missing}
    make_folders(parents)
    for folder in missing:
        folder.mkdir(exist_ok=True)
    for parent in parents:
        sync_folder(parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(error: OSError) -> ServiceError:
    """Return the error of a write to the vault's disk as a ServiceError."""
    if error.errno in _FULL:
        return InsufficientStorageError(
            f"The vault has no space for the blob ({error.strerror}); free some space there and send it again."
        )
    return _error_of(error, f"The vault cannot store the blob: {error.strerror}.")


def _blob_stat(file: os.stat_result) -> BlobStat:
    return BlobStat(file.st_size, file.st_ino)


def _read_error(digest: Digest, error: OSError) -> ServiceError:
    return _error_of(error, f"The vault cannot read blob {digest}: {error.strerror}.")


def _error_of(error: OSError, message: str) -> ServiceError:
    if exhausted_resource(error) is not None:
        return ServiceUnavailableError(message, retry_after=1)
    return ServiceError(message)
