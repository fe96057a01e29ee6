"""The Vault port in memory: for simulations and tests. It behaves as the service."""

from bisect import bisect_right, insort
from collections.abc import Iterable
from io import BytesIO
from threading import RLock

from kuber.domain.admission import check_kind, check_text, unsound
from kuber.domain.digest import Digest
from kuber.domain.kinds import check_artifact
from kuber.domain.knowledge import Artifact
from kuber.domain.query import MAX_LIMIT, Page
from kuber.errors import KnowledgeNotFoundError, RequestRejectedError


class MemoryVault:
    """The Vault port in memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._data: dict[Digest, bytes] = {}
        self._sorted: list[Digest] = []
        self._holders: dict[Digest, set[str]] = {}

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing."""
        if not data:
            raise RequestRejectedError("An empty blob is not stored; send at least one byte.")
        digest = Digest.of(data)
        with self._lock:
            if digest not in self._data:
                self._data[digest] = bytes(data)
                insort(self._sorted, digest)
        return Artifact(digest=digest, size=len(data))

    def get(self, digest: Digest) -> bytes:
        """The bytes with this digest. Nothing can have changed them since they were put."""
        try:
            return self._data[digest]
        except KeyError:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.") from None

    def size(self, digest: Digest) -> int | None:
        """How many bytes are stored under this digest; None when there are none."""
        data = self._data.get(digest)
        return None if data is None else len(data)

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """What is stored, in order of digest; a cursor is the digest that ended the page before."""
        check_limit(limit)
        with self._lock:
            try:
                start = 0 if cursor is None else bisect_right(self._sorted, Digest(cursor))
            except ValueError:
                raise foreign_cursor() from None
            page = self._sorted[start : start + limit]
            more = start + limit < len(self._sorted)
            items = tuple(Artifact(digest=digest, size=len(self._data[digest])) for digest in page)
        return Page(items=items, cursor=page[-1].hex if more else None)

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> None:
        """Promise to keep these blobs, each a sound artifact of the kind before it, for `holder`; all or none."""
        check_text(holder, "The holder of pins")
        wanted = list(artifacts)
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
                    check_artifact(kind, BytesIO(self._data[artifact.digest]).read, size)
                except ValueError as error:
                    raise unsound(artifact.digest, kind, str(error)) from None
            for _, artifact in wanted:
                self._holders.setdefault(artifact.digest, set()).add(holder)

    def unpin(self, holder: str) -> None:
        """Take back every promise to `holder`; without any, nothing changes."""
        with self._lock:
            for holders in self._holders.values():
                holders.discard(holder)

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
