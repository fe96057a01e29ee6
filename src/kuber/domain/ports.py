"""The two ports an entity talks to. Over HTTP, on disk and in memory they behave the same: see tests/contracts."""

from collections.abc import Iterable
from typing import Protocol

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.domain.query import Page, Query
from kuber.domain.verification import Attestation, Verification


class Registry(Protocol):
    """The metadata: who takes part, what was published, what became of it."""

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name; the same name with the same key gives the same member again.

        Raises ConflictError when the name belongs to another key. What is signed by this key, and nothing else, is
        published for the member; without a key, records are not signed.
        """
        ...

    def member(self, id: str) -> Member:
        """The entity with this id, with its keys; KnowledgeNotFoundError when there is none."""
        ...

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Tell that the entity lives, in which round it is, and how good its model is."""
        ...

    def change_key(self, id: str, key: Key) -> Member:
        """Let a new key, vouched for by the one before, sign what comes from `key.since` on.

        Raises CorruptKnowledgeError when it is not vouched for, ConflictError when records from `since` on exist.
        """
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

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Tell what our own evaluation of somebody's knowledge found; again: what was found last.

        Raises KnowledgeNotFoundError when there is no such knowledge, RequestRejectedError when it is our own or was
        evaluated on another test set than its task's.
        """
        ...

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """What entities found about this knowledge, in order of their ids."""
        ...

    def verify(self, id: str, verification: Verification) -> None:
        """Say what the hub found out; again: what it found last. Only its verifier may.

        What is quarantined is found no more, and what is verified on the task's test set is ranked by that. Raises
        KnowledgeNotFoundError when there is no such knowledge, ConflictError while the operator quarantines it.
        """
        ...

    def knowledge(self, id: str) -> Knowledge:
        """One record; KnowledgeNotFoundError when there is none."""
        ...

    def withdraw(self, id: str) -> None:
        """Take one's own record back: it is found no more, only read by its id. Again: nothing.

        Raises KnowledgeNotFoundError when there is none.
        """
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
