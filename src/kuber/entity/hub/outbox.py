"""Outbox: messages to the hub, sent at once or queued in order, also across restarts."""

from collections.abc import Sequence
from contextlib import suppress

from kuber import tracing
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Draft
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.state.blob_cache import PendingBlobs
from kuber.entity.state.journal import Journal
from kuber.entity.state.messages import AttestationReport, DeliveryReport, OutboxMessage, Publication
from kuber.errors import (
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    ServiceUnavailableError,
)

_UNREACHABLE = "The hub is unreachable."


class Outbox:
    """Sends messages in order. Queued ones are part of the entity's state, and their blobs are pending.

    Raises the error of a message that the hub rejects for good.
    """

    def __init__(
        self, hub: HubAccess, journal: Journal, *, availability: HubAvailability, pending: PendingBlobs | None
    ) -> None:
        """Without storage for pending blobs, a publication that cannot be sent is an error."""
        self.availability = availability
        self._hub = hub
        self._journal = journal
        self._pending = pending
        self._reason = _UNREACHABLE  # why the last message was not sent

    def publish(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> None:
        """Publish a signed record and its blobs, in the order of its artifacts, or queue them."""
        publication = Publication(draft=draft, key=key)
        if self._send_unless_queued(publication, blobs):
            return
        if self._pending is None:
            raise ServiceUnavailableError(self._reason)
        for digest, data in zip(publication.digests, blobs, strict=True):
            self._pending.keep(digest, data)
        self._queue(publication)
        detail = {"digest": str(publication.digests[0]), "sequence": draft.sequence, "reason": self._reason}
        self._journal.append("queued", detail)

    def publish_now(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> None:
        """Publish a signed record and those of its blobs that the vault lacks. Raises what the hub raises."""
        self._publish(Publication(draft=draft, key=key), blobs, resend=False)

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Record the outcome of a delivery."""
        self._send_or_queue(DeliveryReport(delivery=delivery, key=key))

    def attest(self, knowledge: str, evaluation: Evaluation) -> None:
        """Store this entity's evaluation of another's knowledge."""
        self._send_or_queue(AttestationReport(knowledge=knowledge, evaluation=evaluation))

    def flush(self) -> None:
        """Send queued messages, in order, until one cannot be sent."""
        journal = self._journal
        while journal.state.outbox:
            first, *rest = journal.state.outbox
            if not self._try_send(first, self._pending_blobs(first)):
                return
            journal.save(outbox=tuple(rest))
        if self._pending is not None:
            self._pending.retain(())

    @property
    def blocked_by(self) -> str | None:
        """Reason why messages are queued; None if none are."""
        return self._reason if self._journal.state.outbox else None

    def _pending_blobs(self, message: OutboxMessage) -> Sequence[bytes]:
        blobs = []
        for digest in message.digests if isinstance(message, Publication) else ():
            data = None if self._pending is None else self._pending.get(digest)
            if data is None:
                raise CorruptKnowledgeError(
                    f"The queued blob {digest} is missing or damaged, and cannot be sent to the vault. "
                    "Start a new run."
                )
            blobs.append(data)
        return blobs

    def _queue(self, message: OutboxMessage) -> None:
        self._journal.change(outbox=(*self._journal.state.outbox, message))

    def _send_or_queue(self, message: OutboxMessage) -> None:
        if not self._send_unless_queued(message):
            self._queue(message)

    def _send_unless_queued(self, message: OutboxMessage, blobs: Sequence[bytes] = ()) -> bool:
        """Send a message unless others are queued before it; return whether it was sent."""
        if self._journal.state.outbox:
            self._reason = "Others wait before it."
            return False
        return self._try_send(message, blobs)

    def _try_send(self, message: OutboxMessage, blobs: Sequence[bytes]) -> bool:
        """Send a message; return whether the hub received it."""
        if not self.availability.up:
            self._reason = _UNREACHABLE
            return False
        try:
            self._send(message, blobs)
        except ServiceUnavailableError as error:
            self._reason = error.message
            self.availability.mark_down(error)
            return False
        except InsufficientStorageError as error:
            self._reason = error.message
            return False
        return True

    def _send(self, message: OutboxMessage, blobs: Sequence[bytes]) -> None:
        match message:
            case Publication():
                # Sent even if the vault has them: the lease that keeps them until there is a record may be over.
                self._publish(message, blobs, resend=True)
            case DeliveryReport(delivery=delivery, key=key):
                self._hub.registry.record(delivery, key=key)
            case AttestationReport(knowledge=knowledge, evaluation=evaluation):
                entity_id = self._journal.state.entity_id
                assert entity_id is not None
                with suppress(KnowledgeNotFoundError):  # withdrawn: there is nothing left to attest
                    self._hub.registry.attest(knowledge, entity=entity_id, evaluation=evaluation)

    def _publish(self, publication: Publication, blobs: Sequence[bytes], *, resend: bool) -> None:
        vault, digests, sent = self._hub.vault, publication.digests, 0
        with tracing.span("publish"):
            for digest, data in zip(digests, blobs, strict=True):
                if resend or vault.size(digest) is None:
                    sent += vault.put(data).size
            knowledge = self._hub.registry.publish(publication.draft, key=publication.key)
        self._journal.append("published", {"knowledge": knowledge.id, "digest": str(digests[0]), "bytes": sent})
