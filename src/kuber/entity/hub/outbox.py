"""Outbox: messages to the hub, sent at once or queued in order, also across restarts."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal

from kuber import tracing
from kuber.client.record_signature import sign
from kuber.domain.delivery import Delivery
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.ports import BlobCarrier
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.hub.paces import Paces
from kuber.entity.hub.restoration import Restoration
from kuber.entity.hub.trust import check_last_record
from kuber.entity.state.blob_cache import PendingBlobs
from kuber.entity.state.journal import Journal
from kuber.entity.state.messages import AttestationReport, DeliveryReport, OutboxMessage, Publication
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    KUberError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
)

MAX_TRIES = 5  # of a message that the hub answers with an error of its own, such as status 500

_QUEUED, _TOO_LARGE = "queued", "too large"  # causes of warnings
_UNREACHABLE = "The hub is unreachable."


class Outbox:
    """Sends messages in order. Queued ones are part of the entity's state, and their blobs are pending.

    A message that the hub rejects for good is dropped, so that it holds up no other. One that is too large for
    something between entity and hub waits without holding up others, and one for which the vault has no space holds
    up publications only.
    """

    def __init__(
        self,
        hub: HubAccess,
        journal: Journal,
        *,
        availability: HubAvailability,
        alerts: Alerts,
        restoration: Restoration,
        pending: PendingBlobs | None,
    ) -> None:
        """Without storage for pending blobs, a publication that cannot be sent is an error."""
        self.availability = availability
        self.paces = Paces(hub.clock)
        self._hub = hub
        self._journal = journal
        self._alerts = alerts
        self._restoration = restoration
        self._pending = pending
        self._reason = _UNREACHABLE  # why the last message was not sent
        self._holds_up: Literal["all", "publications", "none"] = "all"  # what the last message that waits holds up
        self._passed = 0  # the first messages of the queue, which wait but hold up no others
        self._tried: tuple[OutboxMessage | None, int] = (None, 0)  # how often the hub failed with the first message

    def publish(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> bool:
        """Publish a signed record and its blobs, in the order of its artifacts; return whether it is published now.

        Else it is queued, or dropped because the hub rejected it for good.
        """
        publication = Publication(draft=draft, key=key)
        sent = self._send_unless_queued(publication, blobs)
        if sent is not None:
            return sent
        if self._pending is None:
            raise ServiceUnavailableError(self._reason)
        try:
            for digest, data in zip(publication.digests, blobs, strict=True):
                self._pending.keep(digest, data)
        except KUberError as error:  # such as no space left on the disk
            self._drop(publication, error)
            return False
        self._queue(publication)
        detail = {"digest": str(publication.digests[0]), "sequence": draft.sequence, "reason": self._reason}
        if self._alerts.is_known(_TOO_LARGE):
            self._journal.append("queued", detail)
        else:
            self._alerts.add("queued", detail, f"A publication is queued. {self._reason}", cause=_QUEUED)
        return False

    def publish_now(self, draft: Draft, blobs: Sequence[bytes], *, key: str) -> bool:
        """Publish a signed record and those of its blobs that the vault lacks; return whether it is published.

        Else it is dropped because the hub rejected it. Raises ServiceUnavailableError when the hub is unreachable.
        """
        publication = Publication(draft=draft, key=key)
        try:
            self._publish(publication, blobs, resend=False)
        except ServiceUnavailableError:
            raise
        except KUberError as error:
            self._drop(publication, error)
            return False
        return True

    def record(self, delivery: Delivery, *, key: str) -> None:
        """Record the outcome of a delivery."""
        self._send_or_queue(DeliveryReport(delivery=delivery, key=key))

    def attest(self, knowledge: str, evaluation: Evaluation) -> None:
        """Store this entity's evaluation of another's knowledge."""
        self._send_or_queue(AttestationReport(knowledge=knowledge, evaluation=evaluation))

    def flush(self) -> None:
        """Send queued messages, in order, until one cannot be sent that holds up those after it."""
        journal = self._journal
        self._passed, full = 0, False
        while len(journal.state.outbox) > self._passed:
            message = journal.state.outbox[self._passed]
            if not self.availability.is_up("registry"):
                self._reason = _UNREACHABLE
                return
            if full and isinstance(message, Publication):
                self._passed += 1
            elif self._try_send(message, partial(self._pending_blobs, message)) is not None:
                left = list(journal.state.outbox)
                del left[self._passed]
                journal.save(outbox=tuple(left))
            elif self._holds_up == "all":
                return
            else:
                full = full or self._holds_up == "publications"
                self._passed += 1
        if full:
            self._passed = 0  # later publications wait behind those
        if self._passed or full:
            return
        self._alerts.end(_QUEUED)
        self._alerts.end(_TOO_LARGE)
        if self._pending is not None:
            self._pending.retain(())

    @property
    def blocked_by(self) -> str | None:
        """Reason why messages are queued, or could not be; None if none are."""
        if self._journal.state.entity_id is None:
            return self.availability.reason or "The entity has not joined the hub."
        return self._reason if self._journal.state.outbox else None

    def _pending_blobs(self, message: OutboxMessage) -> Sequence[bytes]:
        blobs = []
        for digest in message.digests if isinstance(message, Publication) else ():
            data = None if self._pending is None else self._pending.get(digest)
            if data is None:
                raise CorruptKnowledgeError(
                    f"The queued blob {digest} is missing or damaged, and cannot be sent to the vault."
                )
            blobs.append(data)
        return blobs

    def _queue(self, message: OutboxMessage) -> None:
        if self._holds_up == "none" and len(self._journal.state.outbox) == self._passed:
            self._passed += 1
        self._journal.change(outbox=(*self._journal.state.outbox, message))

    def _send_or_queue(self, message: OutboxMessage) -> None:
        if self._send_unless_queued(message) is None:
            self._queue(message)

    def _send_unless_queued(self, message: OutboxMessage, blobs: Sequence[bytes] = ()) -> bool | None:
        """Send a message unless others are queued before it; return as `_try_send`."""
        if len(self._journal.state.outbox) > self._passed:
            self._reason, self._holds_up = "Others wait before it.", "all"
            return None
        return self._try_send(message, lambda: blobs)

    def _try_send(self, message: OutboxMessage, blobs: Callable[[], Sequence[bytes]]) -> bool | None:
        """Send a message; return True when the hub received it, False when it is dropped, None when it must wait."""
        self._holds_up = "all"
        if not self.availability.is_up("registry"):
            self._reason = _UNREACHABLE
            return None
        try:
            self._send(message, blobs())
        except (ServiceUnavailableError, InsufficientStorageError) as error:
            self._reason = error.message
            if isinstance(error, InsufficientStorageError) and isinstance(message, Publication):
                self._holds_up = "publications"
            return None
        except KUberError as error:
            if self._may_succeed_later(message, error):
                self._reason = error.message
                return None
            if isinstance(error, RequestRejectedError):
                try:
                    known = self._restoration.without_lost(message)
                except ServiceUnavailableError as failure:
                    self._reason = failure.message
                    return None
                except KUberError:  # such as a record that cannot be read: the message is refused all the same
                    known = None
                if known is not None:
                    return self._try_send(known, blobs)
            if isinstance(error, ConflictError) and isinstance(message, Publication):
                self._catch_up()
            self._drop(message, error)
            return False
        return True

    def _may_succeed_later(self, message: OutboxMessage, error: KUberError) -> bool:
        """Return whether it is the hub that fails, not the message; the message gets some tries in case of doubt."""
        if isinstance(error, RequestRejectedError) and error.too_large:
            # Until the operator of a proxy raises its limit, or a later record is published.
            sentence = f"A message to the hub is queued, and others are sent before it. {error.message}"
            self._alerts.warn(sentence, cause=_TOO_LARGE)
            self._holds_up = "none"
            return True
        if type(error) is not ServiceError:
            return False
        entity_id = self._journal.state.entity_id
        assert entity_id is not None
        try:
            with self.availability.using("registry"):
                self._hub.registry.member(entity_id)
        except KUberError:
            return True
        last, tries = self._tried
        self._tried = message, tries + 1 if message == last else 1
        return self._tried[1] < MAX_TRIES

    def _drop(self, message: OutboxMessage, error: KUberError) -> None:
        """Log that a message is not sent."""
        match message:
            case Publication():
                kind = "publication"
            case DeliveryReport():
                kind = "delivery"
            case AttestationReport():
                kind = "attestation"
        detail = {"message": kind, "reason": error.message}
        self._alerts.add("dropped", detail, f"This {kind} is not sent; training continues. {error.message}")

    def _send(self, message: OutboxMessage, blobs: Sequence[bytes]) -> None:
        match message:
            case Publication():
                # Sent even if the vault has them: the lease that keeps them until there is a record may be over.
                self._publish(message, blobs, resend=True)
            case DeliveryReport(delivery=delivery, key=key):
                with self.availability.using("registry"):
                    self._hub.registry.record(delivery, key=key)
            case AttestationReport(knowledge=knowledge, evaluation=evaluation):
                entity_id = self._journal.state.entity_id
                assert entity_id is not None
                # Withdrawn knowledge is not found: there is nothing left to attest.
                with suppress(KnowledgeNotFoundError), self.availability.using("registry"):
                    self._hub.registry.attest(knowledge, entity=entity_id, evaluation=evaluation)

    def _publish(self, publication: Publication, blobs: Sequence[bytes], *, resend: bool) -> None:
        vault, digests, sent = self._hub.vault, publication.digests, 0
        with tracing.span("publish"):
            knowledge = self._publish_together(publication, blobs) if resend else None
            if knowledge is not None:
                sent = sum(map(len, blobs))
            else:
                for digest, data in zip(digests, blobs, strict=True):
                    with self.availability.using("vault"):
                        if resend or vault.size(digest) is None:
                            sent += vault.put(data).size
                with self.availability.using("registry"):
                    knowledge = self._publish_record(publication.draft, key=publication.key)
        self.paces.published(knowledge.published_at)
        self._journal.change(acknowledged=publication.draft.sequence)
        self._journal.append("published", {"knowledge": knowledge.id, "digest": str(digests[0]), "bytes": sent})

    def _publish_together(self, publication: Publication, blobs: Sequence[bytes]) -> Knowledge | None:
        """Publish a record and small blobs in one request; None when the blobs must be sent first."""
        registry = self._hub.registry
        if not isinstance(registry, BlobCarrier) or not self.availability.is_up("vault"):
            return None
        try:
            knowledge = registry.publish_with(publication.draft, blobs, key=publication.key)
        except ServiceUnavailableError:
            return None  # it is the registry or its vault that does not answer: separate requests find out which
        with self.availability.using("registry"):
            return knowledge

    def _catch_up(self) -> None:
        """Continue after the last record that the hub has of this entity, whose own state may be older."""
        state = self._journal.state
        assert state.entity_id is not None
        with suppress(KUberError), self.availability.using("registry"):
            last = self._hub.registry.member(state.entity_id).sequence
            check_last_record(last, state.sequence)
            self._journal.change(sequence=max(last, state.sequence), acknowledged=last)

    def _publish_record(self, draft: Draft, *, key: str) -> Knowledge:
        """Publish a record; if it waits since an older version, which named no hub, and is refused, sign it anew.

        A registry of an older version refuses the field `prior`, and gets the record without it.
        """
        hub = self._journal.state.hub
        try:
            return self._hub.registry.publish(draft, key=key)
        except RequestRejectedError as error:
            if draft.prior is not None and "prior" in error.message:
                return self._publish_record(replace(draft, prior=None, prior_signature=None), key=key)
            if draft.hub is not None or hub is None or error.too_large:
                raise
        return self._hub.registry.publish(sign(draft, self._hub.identity, hub=hub), key=key)
