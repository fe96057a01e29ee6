"""Storage of a vault's bytes: the protocol that a folder and a bucket implement."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact

CHUNK = 1 << 20  # bytes read or written at a time
ID_NAME = "mark"  # of the file or object that holds the id of a storage

Piece = bytes | bytearray | memoryview


class BlobStorage(Protocol):
    """Bytes of blobs by digest. Safe to use from several threads; failures are ServiceErrors.

    Leases and pins are the index's, and so are the locks that keep two callers from changing one blob at a time.
    """

    def storage_id(self) -> str | None:
        """Return the id of this storage, None when it has none yet."""

    def set_storage_id(self, id: str) -> None:
        """Give this storage an id, for good."""

    def create(self) -> "BlobWriter":
        """Open a writer for a new blob."""

    def put_all(self, blobs: Mapping[Digest, bytes]) -> None:
        """Store small blobs under their digests, replacing what is there; durable when it returns.

        When it fails, some may be stored.
        """

    def adopt(self, file: Path) -> "StagedBlob":
        """Stage a complete, durable file of the vault's own folder. Only a commit may move the file."""

    def open(self, artifact: Artifact) -> "BlobReader":
        """Open a blob for reading. KnowledgeNotFoundError when it is missing, here or at the first read."""

    def stat(self, digest: Digest) -> "BlobStat | None":
        """Return the size and version of a blob without reading it; None when it is missing."""

    def hash(self, digest: Digest) -> "HashedBlob | None":
        """Read and hash a whole blob; None when it is missing."""

    def delete(self, digest: Digest) -> None:
        """Delete a blob. Idempotent."""

    def quarantine(self, digest: Digest) -> None:
        """Move a damaged blob aside, for the operator to examine."""

    def list_sizes(self) -> dict[Digest, int]:
        """Return all blobs with their size in bytes, without reading them."""

    def purge_incomplete(self) -> int:
        """Delete blobs that were abandoned before their commit. Return how many."""


class StagedBlob(Protocol):
    """Complete and durable blob that has no digest yet."""

    def commit(self, digest: Digest) -> None:
        """Store it under its digest, replacing what is there."""

    def rollback(self) -> None:
        """Undo the commit: the blob is staged again."""

    def cancel(self) -> None:
        """Discard it unless it is committed. Idempotent."""


class BlobWriter(StagedBlob, Protocol):
    """Blob that is being written; `finish` makes it a staged one."""

    def write(self, piece: Piece) -> None:
        """Append bytes. The caller may overwrite the buffer afterwards."""

    def finish(self) -> None:
        """Make what was written durable: from now on it survives a power cut."""


class BlobReader(Protocol):
    """Blob that is read from its beginning, or a range of it. A `with` block closes it."""

    size: int  # of the whole blob in bytes

    def seek_range(self, first: int, last: int) -> None:
        """Restrict the following reads to the bytes from `first` to `last`, both included."""

    def read(self, length: int = -1, /) -> bytes:
        """Return the next bytes, at most `length`; all that are left when negative; none at the end."""

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class BlobStat(NamedTuple):
    """State of a stored blob, known without reading it."""

    size: int
    version: Hashable  # changes when the blob is written again


class HashedBlob(NamedTuple):
    """Result of reading a stored blob."""

    hex: str  # SHA-256 of its bytes
    stat: BlobStat
