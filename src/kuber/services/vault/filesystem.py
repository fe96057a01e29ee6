"""The bytes of a vault in a folder: one file for each blob, and what makes it safe on disk."""

import errno
import hashlib
import logging
import os
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import InsufficientStorageError, KnowledgeNotFoundError, ServiceError
from kuber.services.vault.storage import MARK, BlobStat, HashedBlob, Piece

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, none of one's own, or a limit on one file
_SYNC = 8 << 20  # bytes that are begun to be put on disk at a time
_NAME = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class FilesystemStorage:
    """Shelves that are the folders `blobs/`, `incoming/` and `quarantine/` under `folder`.

    At start leftovers of a crash are swept: nobody else writes there. Raises OSError when the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._receiving: set[str] = set()  # names of files in incoming/
        self._blobs.mkdir(exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        self.sweep()

    def path(self, digest: Digest) -> Path:
        """Where the file of this blob is, or would be."""
        return self._blobs / digest.hex[:2] / digest.hex[2:4] / digest.hex

    def mark(self) -> str | None:
        """The name that was given to this folder, if any."""
        file = self.folder / MARK
        return file.read_text(encoding="utf-8").strip() if file.exists() else None

    def give_mark(self, mark: str) -> None:
        """Write its name into the folder."""
        (self.folder / MARK).write_text(f"{mark}\n", encoding="utf-8")
        sync(self.folder)

    def arrival(self) -> "FileBlobWriter":
        """A new blob to write, to a file without a name."""
        return IncomingFile(self, self._incoming / secrets.token_hex(16), self._receiving)

    def arrived(self, file: Path) -> "FileBlobWriter":
        """A whole blob that lies, safe on disk, in a file of the vault's own folder."""
        return FileBlobWriter(self, file)

    def open(self, artifact: Artifact) -> "FileBlobReader":
        """The blob's file, to be read; KnowledgeNotFoundError when it is not there."""
        try:
            return FileBlobReader(self.path(artifact.digest).open("rb"))
        except FileNotFoundError:
            raise KnowledgeNotFoundError(f"The vault has no blob {artifact.digest}.") from None
        except OSError as error:
            raise _unreadable(artifact.digest, error) from None

    def look(self, digest: Digest) -> BlobStat | None:
        """The size and the number of the file: a blob that is put again is another file."""
        try:
            return _seen(self.path(digest).stat())
        except FileNotFoundError:
            return None

    def hashed(self, digest: Digest) -> HashedBlob | None:
        """What lies under this digest, read to its end; None when nothing does."""
        try:
            with self.path(digest).open("rb") as file:
                seen = _seen(os.fstat(file.fileno()))
                return HashedBlob(hashlib.file_digest(file, "sha256").hexdigest(), seen)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(digest, error) from None

    def remove(self, digest: Digest) -> None:
        """Take away the file of this blob, if there is one."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            raise ServiceError(f"The file of blob {digest} cannot be removed: {error.strerror}.") from None

    def set_aside(self, digest: Digest) -> None:
        """Move the file of a damaged blob to `quarantine/`."""
        aside = self.folder / "quarantine"
        try:
            make(aside)
            self.path(digest).replace(aside / digest.hex)
        except OSError as error:
            raise ServiceError(f"The vault cannot set blob {digest} aside: {error.strerror}.") from None

    def stock(self) -> dict[Digest, int]:
        """What is there, with its size in bytes. A file that has not the name of its place is removed."""
        found = {}
        for file in self._blobs.glob("*/*/*"):
            if _NAME.fullmatch(file.name) and file == self.path(Digest(file.name)):
                found[Digest(file.name)] = file.stat().st_size
            else:
                log.warning("removed %s, which is no name of a blob", file)
                file.unlink()
        return found

    def sweep(self) -> int:
        """Remove files on their way in that nobody writes: how many."""
        leftovers = [file for file in self._incoming.iterdir() if file.name not in self._receiving]
        for leftover in leftovers:
            log.warning("removed %s, left by a crash", leftover.name)
            leftover.unlink(missing_ok=True)
        return len(leftovers)


class FileBlobWriter:
    """A whole blob in a file that has no name of a blob yet."""

    def __init__(self, shelves: FilesystemStorage, path: Path) -> None:
        self._shelves = shelves
        self._path = path

    def write(self, piece: Piece) -> None:
        """Not possible: all has come."""
        raise ServiceError("This blob is whole; begin another one.")

    def end(self) -> None:
        """Nothing: it is safe on disk already."""

    def place(self, digest: Digest) -> None:
        """Give the file the name of its digest, instead of the file that had it."""
        target = self._shelves.path(digest)
        try:
            make(target.parent)
            self._path.replace(target)
            sync(target.parent)
        except OSError as error:
            raise unwritable(error) from None

    def take_back(self, digest: Digest) -> None:
        """Undo `place`: the file is where it was."""
        self._shelves.path(digest).replace(self._path)

    def discard(self) -> None:
        """Nothing: a file that found no place stays its owner's."""


class IncomingFile(FileBlobWriter):
    """A blob that is written, piece by piece, to a file in `incoming/`; `receiving` names it meanwhile."""

    def __init__(self, shelves: FilesystemStorage, path: Path, receiving: set[str]) -> None:
        super().__init__(shelves, path)
        self._receiving = receiving
        self._size = 0
        receiving.add(path.name)
        try:
            self._file: BinaryIO = path.open("xb", buffering=0)
        except OSError as error:
            receiving.discard(path.name)
            raise unwritable(error) from None

    def write(self, piece: Piece) -> None:
        """Append these bytes; large pieces are best."""
        try:
            write_all(self._file, piece)
        except OSError as error:
            raise unwritable(error) from None
        start_syncing(self._file, self._size, self._size + len(piece))
        self._size += len(piece)

    def end(self) -> None:
        """All has come: from now on it survives a power cut."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise unwritable(error) from None

    def discard(self) -> None:
        """Remove what was written, unless it is in its place."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._receiving.discard(self._path.name)


class FileBlobReader:
    """A blob's file that is being read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self._left = self.size

    def span(self, first: int, last: int) -> None:
        """Go on with the byte `first`, and end after the byte `last`."""
        self._file.seek(first)
        self._left = last - first + 1

    def read(self, length: int = -1, /) -> bytes:
        """The next bytes, at most `length` of them; all that are left when it is negative, none at the end."""
        piece = self._file.read(self._left if length < 0 else min(length, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_all(file: BinaryIO, piece: Piece) -> None:
    """Write every byte to an unbuffered file."""
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def start_syncing(file: BinaryIO, before: int, now: int) -> None:
    """Have the system begin to put on disk what was written, at every _SYNC bytes, so that the end waits for little.

    The advice says that nobody needs those bytes in memory. They stay: pages on their way to disk are not dropped.
    """
    start, end = before // _SYNC * _SYNC, now // _SYNC * _SYNC
    if end > start and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def make(folder: Path) -> None:
    """Make a folder and those above it so that they survive a power cut."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(error: OSError) -> ServiceError:
    """The sentence for what the disk refused."""
    if error.errno in _FULL:
        return InsufficientStorageError(
            f"The vault has no space for the blob ({error.strerror}); make space there and send it again."
        )
    return ServiceError(f"The vault cannot store the blob: {error.strerror}.")


def _seen(file: os.stat_result) -> BlobStat:
    return BlobStat(file.st_size, file.st_ino)


def _unreadable(digest: Digest, error: OSError) -> ServiceError:
    return ServiceError(f"The vault cannot read blob {digest}: {error.strerror}.")
