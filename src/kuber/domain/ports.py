"""The two ports an entity talks to. Over HTTP, on disk and in memory they behave the same: see tests/contracts."""

from collections.abc import Iterable
from typing import Protocol

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Draft, Knowledge
from kuber.domain.member import Member
from kuber.domain.query import Page, Query


class Registry(Protocol):
    """The metadata: who takes part, what was published, what became of it."""

    def register(self, name: str) -> Member:
        """Join under this name; the same name gives the same member again."""
        ...

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """The registered entities, first come first."""
        ...

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record. `key` names this act of the publisher: publishing the same draft again under the same
        key returns the record of the first time.

        Raises RequestRejectedError when the publisher is not registered, a blob is not in the vault with the
        size told, or its header is not the manifest's; ConflictError when the key was used for another draft,
        or the architecture is pinned to another manifest.
        """
        ...

    def discover(self, query: Query) -> Page[Knowledge]:
        """The knowledge that matches, in the order asked for."""
        ...

    def knowledge(self, id: str) -> Knowledge:
        """One record; KnowledgeNotFoundError when there is none."""
        ...

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store what became of a delivery; the same key again changes nothing."""
        ...

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """The recorded deliveries, first come first."""
        ...


class Vault(Protocol):
    """The bytes, by digest."""

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing."""
        ...

    def get(self, digest: Digest) -> bytes:
        """The bytes with this digest, verified. Raises KnowledgeNotFoundError when they are not there and
        CorruptKnowledgeError when what came is not what was named."""
        ...

    def size(self, digest: Digest) -> int | None:
        """How many bytes are stored under this digest; None when there are none."""
        ...

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """What is stored, in order of digest."""
        ...

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> None:
        """Promise to keep these blobs, each of the kind before it, for `holder`, all or none. Raises
        RequestRejectedError when one is not stored with the size told, or is no sound artifact of its kind."""
        ...

    def unpin(self, holder: str) -> None:
        """Take back every promise to `holder`; without any, nothing changes."""
        ...
