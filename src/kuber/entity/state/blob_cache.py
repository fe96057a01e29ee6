"""Blobs that an entity keeps: those to be sent to the vault, and those that it pulled."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from kuber.domain.digest import Digest
from kuber.errors import KUberError
from kuber.files import write_atomically

_NAME = re.compile(r"[0-9a-f]{64}(\.tmp)?")  # of a blob, or of one half written; no other file is touched


class PendingBlobs(Protocol):
    """Storage of blobs that the vault has not received."""

    def keep(self, digest: Digest, data: bytes) -> None: ...

    def get(self, digest: Digest) -> bytes | None: ...

    def retain(self, digests: Collection[Digest]) -> None: ...


class MemoryBlobCache:
    """Blobs in memory, for simulated entities: they outlive a simulated crash."""

    def __init__(self) -> None:
        self._data: dict[Digest, bytes] = {}

    def keep(self, digest: Digest, data: bytes) -> None:
        """Store a blob."""
        self._data[digest] = data

    def get(self, digest: Digest) -> bytes | None:
        """Return the blob with this digest; None if it is not stored."""
        return self._data.get(digest)

    def retain(self, digests: Collection[Digest]) -> None:
        """Remove all other blobs."""
        self._data = {digest: self._data[digest] for digest in digests if digest in self._data}


class BlobCache:
    """Blobs in a folder, each in a file named by its digest; the least recently used go beyond `limit` bytes."""

    def __init__(self, folder: Path, *, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = limit

    def keep(self, digest: Digest, data: bytes) -> None:
        """Store a blob, durably if there is no limit. Raises KUberError when it cannot be written."""
        if self._limit is not None and len(data) > self._limit:
            return
        path = self._path(digest)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(data))
            write_atomically(path, data, durable=self._limit is None)
        except OSError as error:
            raise KUberError(f"Blob {digest} cannot be written to {self._folder}: {error.strerror}.") from None

    def get(self, digest: Digest) -> bytes | None:
        """Return the blob with this digest, verified; None if it is missing or damaged."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
            if Digest.of(data) != digest:
                path.unlink()
                return None
            os.utime(path)
        except OSError:
            return None
        return data

    def retain(self, digests: Collection[Digest]) -> None:
        """Remove all other blobs."""
        names = {digest.hex for digest in digests}
        for file in self._files():
            if file.name not in names:
                file.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        if self._limit is None:
            return
        files = sorted(self._files(), key=lambda file: file.stat().st_mtime_ns)
        taken = sum(file.stat().st_size for file in files)
        for file in files:
            if taken + size <= self._limit:
                return
            taken -= file.stat().st_size
            file.unlink()

    def _files(self) -> list[Path]:
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        return [file for file in files if _NAME.fullmatch(file.name) and not file.is_dir()]

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.hex
