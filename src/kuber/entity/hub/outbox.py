"""Telling the hub: at once where it answers, else later and in the same order, after a restart too."""

from collections.abc import Sequence
from contextlib import suppress

from kuber import tracing
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Draft
from kuber.domain.ports import Registry, Vault
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.state.blob_cache import PendingBlobs
from kuber.entity.state.journal import Journal
from kuber.entity.state.pending import AttestationReport, DeliveryReport, OutboxMessage, Publication
from kuber.errors import (
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    ServiceUnavailableError,
)

_AWAY = "The hub is away."


class Outbox:
    """Errands that the hub has not heard of are part of the entity's state; their blobs lie beside it.

    A new errand is not run before those that wait. What the hub refuses for good is raised.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        vault: Vault,
        journal: Journal,
        line: HubAvailability,
        waiting: PendingBlobs | None,
    ) -> None:
        """Without a place for what waits, a publication that the hub does not take now is an error."""
        self._registry = registry
        self._vault = vault
        self._journal = journal
        self._line = line
        self._waiting = waiting
        self._reason = _AWAY  # why the last errand was not run

    def publish(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> None:
        """Publish a signed record and its blobs, in the order of its artifacts."""
        publication = Publication(draft=draft, key=key)
        if self._run(publication, blobs):
            return
        if self._waiting is None:
            raise ServiceUnavailableError(self._reason)
        for digest, data in zip(publication.digests, blobs, strict=True):
            self._waiting.keep(digest, data)
        self._queue(publication)
        detail = {"digest": str(publication.digests[0]), "sequence": draft.sequence, "reason": self._reason}
        self._journal.append("queued", detail)

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Tell what became of a delivery."""
        told = DeliveryReport(delivery=delivery, key=key)
        if not self._run(told):
            self._queue(told)

    def attest(self, knowledge: str, evaluation: Evaluation) -> None:
        """Tell what we found out about somebody's knowledge."""
        finding = AttestationReport(knowledge=knowledge, evaluation=evaluation)
        if not self._run(finding):
            self._queue(finding)

    def deliver(self) -> None:
        """Run what waits, first come first, until the hub does not take it."""
        journal = self._journal
        while journal.state.errands:
            first, *rest = journal.state.errands
            if not self._attempt(first, self._waiting_blobs(first)):
                return
            journal.save(errands=tuple(rest))
        if self._waiting is not None:
            self._waiting.retain(())

    @property
    def waits(self) -> str | None:
        """Why errands wait; None when none do."""
        return self._reason if self._journal.state.errands else None

    def _waiting_blobs(self, errand: OutboxMessage) -> Sequence[bytes]:
        blobs = []
        for digest in errand.digests if isinstance(errand, Publication) else ():
            data = None if self._waiting is None else self._waiting.get(digest)
            if data is None:
                raise CorruptKnowledgeError(
                    f"The blob {digest} that waits for the vault is gone or damaged; start a new run."
                )
            blobs.append(data)
        return blobs

    def _queue(self, errand: OutboxMessage) -> None:
        self._journal.change(errands=(*self._journal.state.errands, errand))

    def _run(self, errand: OutboxMessage, blobs: Sequence[bytes] = ()) -> bool:
        if self._journal.state.errands:
            self._reason = "Others wait before it."
            return False
        return self._attempt(errand, blobs)

    def _attempt(self, errand: OutboxMessage, blobs: Sequence[bytes]) -> bool:
        """Whether the hub has heard it."""
        if not self._line.up:
            self._reason = _AWAY
            return False
        try:
            self._tell(errand, blobs)
        except ServiceUnavailableError as error:
            self._reason = error.message
            self._line.lose(error)
            return False
        except InsufficientStorageError as error:
            self._reason = error.message
            return False
        return True

    def _tell(self, errand: OutboxMessage, blobs: Sequence[bytes]) -> None:
        match errand:
            case Publication(draft=draft, key=key):
                # Again even if it was there: the lease that keeps it until there is a record may be over.
                with tracing.span("publish"):
                    stored = [self._vault.put(data) for data in blobs]
                    knowledge = self._registry.publish(draft, key=key)
                size = sum(artifact.size for artifact in stored)
                detail = {"knowledge": knowledge.id, "digest": str(stored[0].digest), "bytes": size}
                self._journal.append("published", detail)
            case DeliveryReport(delivery=delivery, key=key):
                self._registry.record(delivery, key=key)
            case AttestationReport(knowledge=knowledge, evaluation=evaluation):
                own = self._journal.state.member
                assert own is not None
                with suppress(KnowledgeNotFoundError):  # then there is nothing left to attest
                    self._registry.attest(knowledge, entity=own, evaluation=evaluation)
