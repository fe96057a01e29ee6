"""A blob on its way into the vault, and what makes a file safe on disk."""

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, InsufficientStorageError, RequestRejectedError, ServiceError

CHUNK = 1 << 20  # bytes read or written at a time
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, none of one's own, or a limit on one file

_SYNC = 8 << 20  # bytes that are begun to be put on disk at a time
_APART = 1 << 18  # bytes worth another thread

Piece = bytes | bytearray | memoryview
Settle = Callable[[Path, Artifact], bool]
"""Gives a complete file its name and indexes it: whether the blob is new."""

_hashing = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hashing")


class Incoming:
    """A blob written piece by piece to a file without a name yet. Made by VaultStore.receive."""

    def __init__(self, path: Path, settle: Settle) -> None:
        self.size = 0
        self._path = path
        self._settle = settle
        self._sha = hashlib.sha256()
        try:
            self._file: BinaryIO = path.open("xb", buffering=0)
        except OSError as error:
            raise unwritable(error) from None

    @property
    def hex(self) -> str:
        """The digest of what was written so far, as hex digits."""
        return self._sha.hexdigest()

    def write(self, piece: Piece) -> None:
        """Append these bytes; large pieces are best."""
        try:
            write_hashed(self._file, piece, self._sha)
        except OSError as error:
            raise unwritable(error) from None
        start_syncing(self._file, self.size, self.size + len(piece))
        self.size += len(piece)

    def keep(self, digest: Digest) -> tuple[Artifact, bool]:
        """Store what was written under `digest`: the artifact, and whether it is new.

        A file that was there already is replaced, which heals a damaged one. Raises CorruptKnowledgeError when the
        bytes are others than named, RequestRejectedError when there are none.
        """
        check_bytes(self.hex, digest)
        if not self.size:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise unwritable(error) from None
        artifact = Artifact(digest=digest, size=self.size)
        return artifact, self._settle(self._path, artifact)

    def discard(self) -> None:
        """Remove what was written, unless it was kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def check_bytes(hex: str, digest: Digest) -> None:
    """CorruptKnowledgeError unless bytes of the digest `hex` are those named."""
    if hex != digest.hex:
        raise CorruptKnowledgeError(f"The bytes sent are sha256:{hex}, not {digest}; send them again.")


def write_hashed(file: BinaryIO, piece: Piece, sha: "hashlib._Hash") -> None:
    """Write every byte to an unbuffered file, and hash a large piece at the same time."""
    hashed = _hashing.submit(sha.update, piece) if len(piece) >= _APART else None
    try:
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
    finally:
        if hashed is not None:
            hashed.result()
    if hashed is None:
        sha.update(piece)


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
