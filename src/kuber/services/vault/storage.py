"""Where the bytes of a vault lie: what the store asks of a folder, and of a bucket, alike."""

from collections.abc import Hashable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact

CHUNK = 1 << 20  # bytes read or written at a time
MARK = "mark"  # where shelves keep their name

Piece = bytes | bytearray | memoryview


class BlobStorage(Protocol):
    """The bytes of blobs, under their digests. Safe to use from several threads.

    It knows nothing of who holds a blob: the index does, and keeps two hands from the same blob at a time. What fails
    is a ServiceError.
    """

    def mark(self) -> str | None:
        """The name that these shelves were given, if any."""
        ...

    def give_mark(self, mark: str) -> None:
        """Give them a name, which stays with them."""
        ...

    def arrival(self) -> "BlobWriter":
        """A new blob to write, which has no name yet."""
        ...

    def arrived(self, file: Path) -> "BlobWriter":
        """A whole blob that lies, safe on disk, in a file of the vault's own folder; the file stays its owner's."""
        ...

    def open(self, artifact: Artifact) -> "BlobReader":
        """The blob, to be read; KnowledgeNotFoundError when it is not there."""
        ...

    def look(self, digest: Digest) -> "BlobStat | None":
        """What lies under this digest now, without reading it; None when nothing does."""
        ...

    def hashed(self, digest: Digest) -> "HashedBlob | None":
        """What lies under this digest, read to its end; None when nothing does."""
        ...

    def remove(self, digest: Digest) -> None:
        """Take away what lies under this digest, if anything does."""
        ...

    def set_aside(self, digest: Digest) -> None:
        """Move a damaged blob out of the way, for a person to look at."""
        ...

    def stock(self) -> dict[Digest, int]:
        """What is there, with its size in bytes; nothing of it is read."""
        ...

    def sweep(self) -> int:
        """Remove what was on its way in and will not arrive: how many."""
        ...


class BlobWriter(Protocol):
    """A blob that comes in, piece by piece, and is then given its place."""

    def write(self, piece: Piece) -> None:
        """Append these bytes, which may be overwritten afterwards."""
        ...

    def end(self) -> None:
        """All has come: from now on it survives a power cut."""
        ...

    def place(self, digest: Digest) -> None:
        """Put it under its digest, instead of what was there."""
        ...

    def take_back(self, digest: Digest) -> None:
        """Undo `place`: it has no name again."""
        ...

    def discard(self) -> None:
        """Remove what is not in its place; at any time, and also again."""
        ...


class BlobReader(Protocol):
    """A blob that is being read from its beginning, or the part of it that was asked for."""

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        ...

    def span(self, first: int, last: int) -> None:
        """Go on with the byte `first`, and end after the byte `last`."""
        ...

    def read(self, length: int = -1, /) -> bytes:
        """The next bytes, at most `length` of them; all that are left when it is negative, none at the end."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BlobStat(NamedTuple):
    """What can be told of bytes without reading them."""

    size: int
    mark: Hashable  # what is put there again has another


class HashedBlob(NamedTuple):
    """What the bytes under a digest are."""

    hex: str  # of their own digest
    seen: BlobStat
