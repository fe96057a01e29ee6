"""The Vault port in memory, for simulations and tests; it behaves like the service."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from io import BytesIO
from threading import RLock
from typing import Protocol

from kuber.domain.artifact_checks import check_artifact
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.domain.publication_checks import check_kind, check_text, invalid_artifact
from kuber.domain.query import Page, check_limit, invalid_cursor
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError


class BlobBytes(Protocol):
    """Storage for the bytes of blobs."""

    def store(self, digest: Digest, data: bytes) -> None:
        """Store the bytes; called once for each digest."""

    def head(self, digest: Digest, length: int) -> bytes:
        """Return the first `length` bytes of a stored blob, or all of a shorter one."""


class MemoryBlobBytes:
    """Stores bytes in a dictionary."""

    def __init__(self) -> None:
        self._data: dict[Digest, bytes] = {}

    def store(self, digest: Digest, data: bytes) -> None:
        self._data[digest] = bytes(data)

    def head(self, digest: Digest, length: int) -> bytes:
        return self._data[digest][:length]


class MemoryVault:
    """The Vault port in memory. Safe to use from several threads."""

    def __init__(self, bytes: BlobBytes | None = None) -> None:
        self._lock = RLock()
        self._bytes = bytes or MemoryBlobBytes()
        self._sizes: dict[Digest, int] = {}
        self._sorted: list[Digest] | None = None  # digests, sorted when they are listed
        self._holders: dict[Digest, set[str]] = {}
        self._pinned: dict[str, list[Digest]] = {}  # by holder

    def __repr__(self) -> str:
        return f"<MemoryVault: blobs={len(self._sizes)}>"

    def put(self, data: bytes) -> Artifact:
        """Store bytes under their digest. Idempotent."""
        if not data:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        digest = Digest.of(data)
        with self._lock:
            if digest not in self._sizes:
                self._bytes.store(digest, data)
                self._sizes[digest] = len(data)
                self._sorted = None
        return Artifact(digest=digest, size=len(data))

    def get(self, digest: Digest) -> bytes:
        """Return the bytes with this digest, which nothing can have changed."""
        try:
            return self._bytes.head(digest, self._sizes[digest])
        except KeyError:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.") from None

    def size(self, digest: Digest) -> int | None:
        """Return the number of bytes stored under this digest, None when there are none."""
        return self._sizes.get(digest)

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """Return the stored blobs, in order of digest; a cursor is the last digest of the previous page."""
        check_limit(limit)
        with self._lock:
            self._sorted = self._sorted or sorted(self._sizes)
            try:
                start = 0 if cursor is None else bisect_right(self._sorted, Digest(cursor))
            except ValueError:
                raise invalid_cursor() from None
            page = self._sorted[start : start + limit]
            more = start + limit < len(self._sorted)
            items = tuple(Artifact(digest=digest, size=self._sizes[digest]) for digest in page)
        return Page(items=items, cursor=page[-1].hex if more else None)

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Keep these (kind, artifact) pairs for `holder`; all or none. Return the manifests of weights."""
        check_text(holder, "The holder of pins")
        wanted = list(artifacts)
        manifests: dict[Digest, Manifest] = {}
        with self._lock:
            for kind, artifact in wanted:
                check_kind(kind)
                size = self.size(artifact.digest)
                if size is None:
                    raise RequestRejectedError(f"Blob {artifact.digest} is not in the vault; put it there first.")
                if size != artifact.size:
                    raise RequestRejectedError(
                        f"Blob {artifact.digest} has {size} bytes, not the stated {artifact.size}."
                    )
                try:
                    manifest = check_artifact(kind, BytesIO(self.get(artifact.digest)).read, size)
                except ValueError as error:
                    raise invalid_artifact(artifact.digest, kind, str(error)) from None
                if manifest is not None:
                    manifests[artifact.digest] = manifest
            for _, artifact in wanted:
                self._holders.setdefault(artifact.digest, set()).add(holder)
                self._pinned.setdefault(holder, []).append(artifact.digest)
        return manifests

    def unpin(self, holder: str) -> None:
        """Remove every pin of `holder`. Idempotent."""
        with self._lock:
            for digest in self._pinned.pop(holder, ()):
                self._holders[digest].discard(holder)

    def pinned(self, digest: Digest) -> list[str]:
        """Return the holders that pin this blob, sorted."""
        with self._lock:
            return sorted(self._holders.get(digest, ()))
