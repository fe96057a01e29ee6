"""Blob storage in an S3-compatible bucket: one object per blob."""

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from kuber.domain.digest import Digest
from kuber.domain.event import utc_now
from kuber.domain.knowledge import Artifact
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, ServiceError
from kuber.services.vault.s3_client import Bucket, Object, ObjectWriter
from kuber.services.vault.storage import CHUNK, ID_NAME, BlobReader, BlobStat, HashedBlob, Piece

EXPIRY = timedelta(days=1)  # of a staged object that is never committed

_KEY = re.compile(r"blobs/([0-9a-f]{2})/([0-9a-f]{2})/(\1\2[0-9a-f]{60})")
_STAGED = re.compile(r"staging/[0-9a-f]{32}")  # named by `secrets.token_hex(16)`

log = logging.getLogger(__name__)


class S3Storage:
    """BlobStorage under the keys `blobs/`, `staging/` and `quarantine/` of a bucket.

    A new blob is staged under a random key; its commit copies it, inside the bucket, to the key of its digest. Raises
    ServiceUnavailableError at start unless objects can be written and deleted.
    """

    def __init__(
        self, bucket: Bucket, *, expiry: timedelta = EXPIRY, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.bucket = bucket
        self._expiry = expiry
        self._clock = clock
        self._in_use: set[str] = set()  # staged keys that this process still needs
        probe = staging_key(secrets.token_hex(16))
        bucket.put(probe, b"Whether a vault may write here.")
        bucket.delete(probe)

    def storage_id(self) -> str | None:
        """Return the id of this prefix of the bucket, None when it has none yet."""
        if self.bucket.head(ID_NAME) is None:
            return None
        return b"".join(self.bucket.get(ID_NAME)[1]).decode("utf-8", "replace").strip()

    def set_storage_id(self, id: str) -> None:
        """Write the id under the prefix."""
        self.bucket.put(ID_NAME, id.encode())

    def create(self) -> "S3BlobWriter":
        """Open a writer for a new blob, under a key that nobody else knows."""
        return S3BlobWriter(self, staging_key(secrets.token_hex(16)), self._in_use)

    def adopt(self, file: Path) -> "S3BlobWriter":
        """Stage a copy of a file of the vault's own folder."""
        blob = self.create()
        try:
            with file.open("rb") as source:
                while piece := source.read(CHUNK):
                    blob.write(piece)
            blob.finish()
        except BaseException as error:
            blob.cancel()
            if isinstance(error, OSError):
                raise ServiceError(f"The vault cannot read the upload: {error.strerror}.") from None
            raise
        return blob

    def put_all(self, blobs: Mapping[Digest, bytes]) -> None:
        """Store small blobs under their digests."""
        for digest, data in blobs.items():
            blob = self.create()
            try:
                blob.write(data)
                blob.finish()
                blob.commit(digest)
            finally:
                blob.cancel()

    def adopt_object(self, key: str) -> "S3BlobWriter":
        """Stage a copy of the object `key`, which others may still change. FileNotFoundError when it is missing."""
        blob = self.create()
        try:
            blob.finish_as_copy(key)
        except BaseException:
            blob.cancel()
            raise
        return blob

    def unstage(self, key: str) -> None:
        """Delete a staged object; if that fails, `purge_incomplete` deletes it later."""
        try:
            self.bucket.delete(key)
        except ServiceError as error:
            log.warning("%s cannot be deleted now: %s", key, error)

    def open(self, artifact: Artifact) -> "S3BlobReader":
        """Open a blob for reading; the first read finds out whether it exists."""
        return S3BlobReader(self.bucket, artifact)

    def stat(self, digest: Digest) -> BlobStat | None:
        """Return the size, and as version the ETag and time, of a blob's object."""
        found = self.bucket.head(blob_key(digest))
        return None if found is None else _blob_stat(found)

    def hash(self, digest: Digest) -> HashedBlob | None:
        """Read and hash a whole blob; None when it is missing."""
        try:
            return hash_object(self.bucket, blob_key(digest))
        except FileNotFoundError:
            return None

    def delete(self, digest: Digest) -> None:
        """Delete a blob. Idempotent."""
        self.bucket.delete(blob_key(digest))

    def quarantine(self, digest: Digest) -> None:
        """Move the object of a damaged blob to `quarantine/`."""
        self.bucket.copy(blob_key(digest), f"quarantine/{digest.hex}")
        self.bucket.delete(blob_key(digest))

    def list_sizes(self) -> dict[Digest, int]:
        """Return all blobs with their size in bytes. Ignore objects whose name is not that of a blob."""
        sizes = {}
        for found in self.bucket.objects("blobs"):
            if match := _KEY.fullmatch(found.key):
                sizes[Digest(match[3])] = found.size
        return sizes

    def purge_incomplete(self) -> int:
        """Delete a vault's staged objects that have expired, as other vaults may use the bucket. Return how many."""
        threshold = self._clock() - self._expiry
        staged = [found for found in self.bucket.objects("staging") if _STAGED.fullmatch(found.key)]
        old = [found.key for found in staged if found.modified <= threshold]
        abandoned = [key for key in old if key not in self._in_use]
        for key in abandoned:
            log.warning("deleted %s, which was never committed", key)
            self.bucket.delete(key)
        return len(abandoned)


class S3BlobWriter:
    """BlobWriter to an object in `staging/`, whose key is in `in_use` meanwhile."""

    def __init__(self, storage: S3Storage, key: str, in_use: set[str]) -> None:
        self.key = key
        self._storage = storage
        self._bucket = storage.bucket
        self._in_use = in_use
        self._first = b""  # a blob of one piece is sent in one request
        self._sender: ObjectWriter | None = None
        self._staged = False
        self._committed: Digest | None = None
        in_use.add(key)

    def write(self, piece: Piece) -> None:
        """Append bytes; large pieces are fastest."""
        if self._sender is None and not self._first:
            self._first = bytes(piece)
            return
        if self._sender is None:
            self._sender = self._bucket.writer(self.key)
            self._sender.write(self._first)
            self._first = b""
        self._sender.write(bytes(piece))

    def finish(self) -> None:
        """Return when the object is stored."""
        self._staged = True  # perhaps even if this fails, when only the response is lost
        if self._sender is not None:
            self._sender.finish()
        else:
            self._bucket.put(self.key, self._first)

    def finish_as_copy(self, key: str) -> None:
        """Store a copy of another object, instead of written bytes."""
        self._staged = True
        self._bucket.copy(key, self.key)

    def commit(self, digest: Digest) -> None:
        """Copy the object to the key of its digest, replacing the object there."""
        self._bucket.copy(self.key, blob_key(digest))
        self._committed = digest

    def rollback(self) -> None:
        """Delete the copy; if that fails, the next start finds an object without a row."""
        assert self._committed is not None
        try:
            self._bucket.delete(blob_key(self._committed))
        except ServiceError as error:
            log.warning("the object of %s stays until the next start: %s", self._committed, error)

    def cancel(self) -> None:
        """Delete the staged object. Idempotent."""
        if self._sender is not None:
            self._sender.cancel()
        if self._staged:
            self._storage.unstage(self.key)
            self._staged = False
        self._in_use.discard(self.key)


class S3BlobReader(BlobReader):
    """BlobReader of an object, which is fetched as it is read."""

    def __init__(self, bucket: Bucket, artifact: Artifact) -> None:
        self._bucket = bucket
        self.size = artifact.size  # according to the index
        self._digest = artifact.digest
        self._pieces: Iterator[bytes] | None = None
        self._rest = memoryview(b"")  # of the piece that is being read

    def seek_range(self, first: int, last: int) -> None:
        """Request the bytes from `first` to `last`, both included.

        Raises KnowledgeNotFoundError when the object is missing, CorruptKnowledgeError when its size is wrong.
        """
        try:
            found, self._pieces = self._bucket.get(blob_key(self._digest), first, last)
        except FileNotFoundError:
            raise KnowledgeNotFoundError(f"The vault has no blob {self._digest}.") from None
        self._rest = memoryview(b"")
        if found.size != self.size:
            self._pieces = iter(())
            raise CorruptKnowledgeError(f"Blob {self._digest} is damaged in the vault's bucket; publish it again.")

    def read(self, length: int = -1, /) -> bytes:
        """Return the next bytes, at most `length`; all that are left when negative; none at the end."""
        if self._pieces is None:
            self.seek_range(0, self.size - 1)
        assert self._pieces is not None
        if length < 0:
            return bytes(self._rest) + b"".join(self._pieces)
        taken = [self._take(length)]
        left = length - len(taken[0])
        while left and (piece := self._take(left)):
            taken.append(piece)
            left -= len(piece)
        return b"".join(taken)

    def close(self) -> None:
        self._pieces = iter(())

    def _take(self, length: int) -> bytes:
        assert self._pieces is not None
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece = bytes(self._rest[:length])
        self._rest = self._rest[length:]
        return piece


def blob_key(digest: Digest) -> str:
    """Return the key of a blob."""
    return f"blobs/{digest.hex[:2]}/{digest.hex[2:4]}/{digest.hex}"


def staging_key(name: str) -> str:
    """Return the key of a staged object."""
    return f"staging/{name}"


def hash_object(bucket: Bucket, key: str) -> HashedBlob:
    """Read and hash a whole object. FileNotFoundError when it is missing."""
    found, pieces = bucket.get(key)
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return HashedBlob(sha.hexdigest(), _blob_stat(found))


def _blob_stat(found: Object) -> BlobStat:
    return BlobStat(found.size, (found.tag, found.modified))
