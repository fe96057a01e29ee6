"""Ports of a hub: what an entity uses of registry and vault, and what operators, the verifier and tools use.

Over HTTP, on a database and in memory they behave the same: see tests/contracts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from kuber.domain.delivery import Delivery
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Artifact, Draft, Knowledge, Manifest
from kuber.domain.member import Key, Member
from kuber.domain.query import Page, Query
from kuber.domain.verification import Attestation, Verification


class Registry(Protocol):
    """The metadata service, as an entity uses it."""

    def register(self, name: str, *, public_key: str | None = None) -> Member:
        """Join under this name. Idempotent: the same name and key return the same member.

        Raises ConflictError when the name belongs to another key. Only records signed with this key are published
        for the member; without a key, records are unsigned.
        """

    def hub_id(self) -> str | None:
        """Return the id of the hub, which records are signed for; None for a registry of an older version."""

    def member(self, id: str) -> Member:
        """Return the entity with this id and its keys. Raises KnowledgeNotFoundError when there is none."""

    def report(self, id: str, *, round: int, evaluation: Evaluation | None = None) -> None:
        """Report that the entity is alive, its round, and how good its model is."""

    def publish(self, draft: Draft, *, key: str) -> Knowledge:
        """Store a record and return it.

        `key` is the publisher's idempotency key: the same draft under the same key returns the first record. Raises
        RequestRejectedError when the publisher is not registered, a blob is not in the vault with the stated size,
        or its header differs from the manifest; ConflictError when the key was used for another draft, or the
        architecture is pinned to another manifest.
        """

    def discover(self, query: Query) -> Page[Knowledge]:
        """Return the matching knowledge, in the order of the query."""

    def knowledge(self, id: str) -> Knowledge:
        """Return one record. Raises KnowledgeNotFoundError when there is none."""

    def attest(self, id: str, *, entity: str, evaluation: Evaluation) -> None:
        """Store this entity's own evaluation of another's knowledge, in place of its previous one.

        Raises KnowledgeNotFoundError when there is no such knowledge, RequestRejectedError when the entity published
        it itself or evaluated on another test set than the task's.
        """

    def attestations(self, id: str) -> tuple[Attestation, ...]:
        """Return the entities' attestations of this knowledge, in order of entity id."""

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Store the outcome of a delivery. Idempotent for the same `key`."""


@runtime_checkable
class BlobCarrier(Protocol):
    """A registry that takes small blobs together with their record, and has its vault store them."""

    def publish_with(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> Knowledge | None:
        """Store a record and all its blobs, as `publish` does; None when they must be put into the vault first."""


class RegistryAdmin(Registry, Protocol):
    """The whole metadata service: also what owners, verifier and tools use."""

    def change_key(self, id: str, key: Key) -> Member:
        """Add a key, signed with the previous one, for records from sequence `key.since` on.

        Raises CorruptKnowledgeError when the signature is invalid, ConflictError when records from `since` on exist.
        """

    def members(self, *, limit: int = 100, cursor: str | None = None) -> Page[Member]:
        """Return the registered entities, earliest first."""

    def verify(self, id: str, verification: Verification) -> None:
        """Store the hub's verification of a record, in place of its previous one. Only the hub's verifier may.

        Quarantined knowledge is no longer discovered; knowledge verified on the task's test set is ranked by that
        evaluation. Raises KnowledgeNotFoundError when there is no such knowledge, ConflictError while the operator
        quarantines it.
        """

    def withdraw(self, id: str) -> None:
        """Withdraw one's own record: it is no longer discovered, only read by its id. Idempotent.

        Raises KnowledgeNotFoundError when there is none.
        """

    def deliveries(self, *, limit: int = 100, cursor: str | None = None) -> Page[Delivery]:
        """Return the recorded deliveries, earliest first."""


class Vault(Protocol):
    """The blob service, as an entity uses it."""

    def put(self, data: bytes) -> Artifact:
        """Store bytes under their digest. Idempotent."""

    def get(self, digest: Digest) -> bytes:
        """Return the bytes with this digest, verified.

        Raises KnowledgeNotFoundError when there are none, CorruptKnowledgeError when they do not match the digest.
        """

    def size(self, digest: Digest) -> int | None:
        """Return the number of bytes stored under this digest, None when there are none."""


class VaultAdmin(Vault, Protocol):
    """The whole blob service: also what a registry and tools use."""

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """Return the stored blobs, in order of digest."""

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Keep these (kind, artifact) pairs for `holder`, a record's id; all or none. Return the weights' manifests.

        Raises RequestRejectedError when a blob is not stored with the stated size, or not a valid artifact of its
        kind.
        """

    def unpin(self, holder: str) -> None:
        """Remove every pin of `holder`. Idempotent."""
