"""The bytes of a vault in a bucket: one object for each blob."""

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, ServiceError
from kuber.services.vault.s3_client import Bucket, Object, Sender
from kuber.services.vault.storage import CHUNK, MARK, BlobStat, HashedBlob, Piece

EXPIRY = timedelta(days=1)  # of what is staged and never gets its place

_KEY = re.compile(r"blobs/([0-9a-f]{2})/([0-9a-f]{2})/(\1\2[0-9a-f]{60})")

log = logging.getLogger(__name__)


class S3Storage:
    """Shelves that are the keys `blobs/`, `staging/` and `quarantine/` of a bucket.

    What comes in is staged under a random key and copied, inside the bucket, to its digest's. At start it is tried
    whether objects can be written, and removed; ServiceUnavailableError when not.
    """

    def __init__(
        self, bucket: Bucket, *, expiry: timedelta = EXPIRY, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.bucket = bucket
        self._expiry = expiry
        self._clock = clock
        self._staging: set[str] = set()  # keys that this process still needs
        probe = staged(secrets.token_hex(16))
        bucket.put(probe, b"Whether a vault may write here.")
        bucket.delete(probe)

    def mark(self) -> str | None:
        """The name that was given to this prefix of the bucket, if any."""
        if self.bucket.head(MARK) is None:
            return None
        return b"".join(self.bucket.get(MARK)[1]).decode("utf-8", "replace").strip()

    def give_mark(self, mark: str) -> None:
        """Put its name under the prefix."""
        self.bucket.put(MARK, mark.encode())

    def arrival(self) -> "S3BlobWriter":
        """A new blob to write, to a key that nobody else knows."""
        return S3BlobWriter(self, staged(secrets.token_hex(16)), self._staging)

    def arrived(self, file: Path) -> "S3BlobWriter":
        """A whole blob that lies in a file of the vault's own folder: it is staged by this."""
        blob = self.arrival()
        try:
            with file.open("rb") as source:
                while piece := source.read(CHUNK):
                    blob.write(piece)
            blob.end()
        except OSError as error:
            blob.discard()
            raise ServiceError(f"The vault cannot read what was uploaded: {error.strerror}.") from None
        except BaseException:
            blob.discard()
            raise
        return blob

    def copied(self, key: str) -> "S3BlobWriter":
        """A blob that is a copy of the object `key`, which others may still change; FileNotFoundError without one."""
        blob = self.arrival()
        try:
            blob.copy_of(key)
        except BaseException:
            blob.discard()
            raise
        return blob

    def unstage(self, key: str) -> None:
        """Remove a staged object that is not needed any more; where that fails, a sweep will."""
        try:
            self.bucket.delete(key)
        except ServiceError as error:
            log.warning("%s stays until it is swept: %s", key, error)

    def open(self, artifact: Artifact) -> "S3BlobReader":
        """The blob, to be read: what is there is seen when the first of its bytes is asked for."""
        return S3BlobReader(self.bucket, artifact)

    def look(self, digest: Digest) -> BlobStat | None:
        """The size, the tag and the time of the object."""
        found = self.bucket.head(placed(digest))
        return None if found is None else _seen(found)

    def hashed(self, digest: Digest) -> HashedBlob | None:
        """What lies under this digest, read to its end; None when nothing does."""
        try:
            return hashed(self.bucket, placed(digest))
        except FileNotFoundError:
            return None

    def remove(self, digest: Digest) -> None:
        """Take away the object of this blob, if there is one."""
        self.bucket.delete(placed(digest))

    def set_aside(self, digest: Digest) -> None:
        """Move the object of a damaged blob to `quarantine/`."""
        self.bucket.copy(placed(digest), f"quarantine/{digest.hex}")
        self.bucket.delete(placed(digest))

    def stock(self) -> dict[Digest, int]:
        """What is there, with its size in bytes. Objects under other names are not ours, and stay."""
        found = {}
        for each in self.bucket.objects("blobs"):
            if match := _KEY.fullmatch(each.key):
                found[Digest(match[3])] = each.size
        return found

    def sweep(self) -> int:
        """Remove what was staged long ago: how many. By its age, as other vaults may stage in the same bucket."""
        ended = self._clock() - self._expiry
        old = [each.key for each in self.bucket.objects("staging") if each.modified <= ended]
        leftovers = [key for key in old if key not in self._staging]
        for key in leftovers:
            log.warning("removed %s, which never arrived", key)
            self.bucket.delete(key)
        return len(leftovers)


class S3BlobWriter:
    """A blob that is written, piece by piece, to an object in `staging/`; `staging` names it meanwhile."""

    def __init__(self, shelves: S3Storage, key: str, staging: set[str]) -> None:
        self.key = key
        self._shelves = shelves
        self._bucket = shelves.bucket
        self._staging = staging
        self._first = b""  # a blob of one piece is sent in one request
        self._sender: Sender | None = None
        self._stored = False
        staging.add(key)

    def write(self, piece: Piece) -> None:
        """Append these bytes; large pieces are best."""
        if self._sender is None and not self._first:
            self._first = bytes(piece)
            return
        if self._sender is None:
            self._sender = self._bucket.sender(self.key)
            self._sender.write(self._first)
            self._first = b""
        self._sender.write(bytes(piece))

    def end(self) -> None:
        """Return when the object is stored."""
        self._stored = True  # or it may be: a lost answer tells nothing
        if self._sender is not None:
            self._sender.end()
        else:
            self._bucket.put(self.key, self._first)

    def copy_of(self, key: str) -> None:
        """Instead of writing it: copy another object."""
        self._stored = True
        self._bucket.copy(key, self.key)

    def place(self, digest: Digest) -> None:
        """Copy it to the key of its digest, over what is there."""
        self._bucket.copy(self.key, placed(digest))

    def take_back(self, digest: Digest) -> None:
        """Undo `place`; where that fails, the next start finds an object without a row."""
        try:
            self._bucket.delete(placed(digest))
        except ServiceError as error:
            log.warning("the object of %s stays until the next start: %s", digest, error)

    def discard(self) -> None:
        """Remove the staged object; where that fails, a sweep will."""
        if self._sender is not None:
            self._sender.cut()
        if self._stored:
            self._shelves.unstage(self.key)
            self._stored = False
        self._staging.discard(self.key)


class S3BlobReader:
    """A blob's object that is being read, as it comes."""

    def __init__(self, bucket: Bucket, artifact: Artifact) -> None:
        self._bucket = bucket
        self._artifact = artifact
        self._pieces: Iterator[bytes] | None = None
        self._held = memoryview(b"")  # of the piece that is being given away

    @property
    def size(self) -> int:
        """Bytes of the whole blob, by the index."""
        return self._artifact.size

    def span(self, first: int, last: int) -> None:
        """Ask for the bytes from `first` to `last`. KnowledgeNotFoundError when the object is gone, and
        CorruptKnowledgeError when it is of another size."""
        digest = self._artifact.digest
        try:
            found, self._pieces = self._bucket.get(placed(digest), first, last)
        except FileNotFoundError:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.") from None
        self._held = memoryview(b"")
        if found.size != self.size:
            self._pieces = iter(())
            raise CorruptKnowledgeError(f"The object of blob {digest} is damaged in the vault; publish it again.")

    def read(self, length: int = -1, /) -> bytes:
        """The next bytes, at most `length` of them; all that are left when it is negative, none at the end."""
        if self._pieces is None:
            self.span(0, self.size - 1)
        assert self._pieces is not None
        if length < 0:
            return bytes(self._held) + b"".join(self._pieces)
        taken = [self._take(length)]
        left = length - len(taken[0])
        while left and (piece := self._take(left)):
            taken.append(piece)
            left -= len(piece)
        return b"".join(taken)

    def close(self) -> None:
        self._pieces = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, length: int) -> bytes:
        assert self._pieces is not None
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        piece = bytes(self._held[:length])
        self._held = self._held[length:]
        return piece


def placed(digest: Digest) -> str:
    """The key of a blob."""
    return f"blobs/{digest.hex[:2]}/{digest.hex[2:4]}/{digest.hex}"


def staged(name: str) -> str:
    """The key of what is on its way in."""
    return f"staging/{name}"


def hashed(bucket: Bucket, key: str) -> HashedBlob:
    """What an object is, read to its end; FileNotFoundError when it is not there."""
    found, pieces = bucket.get(key)
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return HashedBlob(sha.hexdigest(), _seen(found))


def _seen(found: Object) -> BlobStat:
    return BlobStat(found.size, (found.tag, found.modified))
