"""The Vault port in memory: for simulations and tests. It behaves as the service."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from io import BytesIO
from threading import RLock
from typing import Protocol

from kuber.domain.artifact_checks import check_artifact
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.domain.publication_checks import check_kind, check_text, invalid_artifact
from kuber.domain.query import MAX_LIMIT, Page
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError


class BlobBytes(Protocol):
    """Where the bytes of blobs lie."""

    def keep(self, digest: Digest, data: bytes) -> None:
        """Keep them; each digest comes once."""
        ...

    def head(self, digest: Digest, length: int) -> bytes:
        """The first so many bytes of a blob that is kept, or all of a shorter one."""
        ...


class MemoryBlobBytes:
    """Keeps bytes as they come."""

    def __init__(self) -> None:
        self._data: dict[Digest, bytes] = {}

    def keep(self, digest: Digest, data: bytes) -> None:
        self._data[digest] = bytes(data)

    def head(self, digest: Digest, length: int) -> bytes:
        return self._data[digest][:length]


class MemoryVault:
    """The Vault port in memory. Safe to use from several threads."""

    def __init__(self, bytes: BlobBytes | None = None) -> None:
        self._lock = RLock()
        self._bytes = bytes or MemoryBlobBytes()
        self._sizes: dict[Digest, int] = {}
        self._sorted: list[Digest] | None = None  # sorted when they are listed
        self._holders: dict[Digest, set[str]] = {}
        self._held: dict[str, list[Digest]] = {}  # by holder

    def __repr__(self) -> str:
        return f"<MemoryVault: blobs={len(self._sizes)}>"

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing."""
        if not data:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        digest = Digest.of(data)
        with self._lock:
            if digest not in self._sizes:
                self._bytes.keep(digest, data)
                self._sizes[digest] = len(data)
                self._sorted = None
        return Artifact(digest=digest, size=len(data))

    def get(self, digest: Digest) -> bytes:
        """The bytes with this digest. Nothing can have changed them since they were put."""
        try:
            return self._bytes.head(digest, self._sizes[digest])
        except KeyError:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.") from None

    def size(self, digest: Digest) -> int | None:
        """How many bytes are stored under this digest; None when there are none."""
        return self._sizes.get(digest)

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """What is stored, in order of digest; a cursor is the digest that ended the page before."""
        check_limit(limit)
        with self._lock:
            self._sorted = self._sorted or sorted(self._sizes)
            try:
                start = 0 if cursor is None else bisect_right(self._sorted, Digest(cursor))
            except ValueError:
                raise foreign_cursor() from None
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
                        f"Blob {artifact.digest} has {size} bytes, not the {artifact.size} told."
                    )
                try:
                    manifest = check_artifact(kind, BytesIO(self.get(artifact.digest)).read, size)
                except ValueError as error:
                    raise invalid_artifact(artifact.digest, kind, str(error)) from None
                if manifest is not None:
                    manifests[artifact.digest] = manifest
            for _, artifact in wanted:
                self._holders.setdefault(artifact.digest, set()).add(holder)
                self._held.setdefault(holder, []).append(artifact.digest)
        return manifests

    def unpin(self, holder: str) -> None:
        """Take back every promise to `holder`; without any, nothing changes."""
        with self._lock:
            for digest in self._held.pop(holder, ()):
                self._holders[digest].discard(holder)

    def pinned(self, digest: Digest) -> list[str]:
        """Who holds this blob, in order of name."""
        with self._lock:
            return sorted(self._holders.get(digest, ()))


def check_limit(limit: int) -> None:
    """RequestRejectedError unless a page can have so many entries."""
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestRejectedError(f"A page has 1 to {MAX_LIMIT} entries; ask for that many.")


def foreign_cursor() -> RequestRejectedError:
    """What a cursor of another listing is answered."""
    return RequestRejectedError("The cursor is not one of this listing; start again without it.")
