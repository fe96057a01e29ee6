"""Session of an entity with its hub: join it, report to it, and the parts that exchange knowledge with it."""

from dataclasses import replace
from functools import partial

from kuber.domain.evaluation import Evaluation
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess, Sharing
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.hub.discovery import Discovery
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.publisher import Publisher
from kuber.entity.hub.trust import Trust
from kuber.entity.state.checkpoint import Absorption
from kuber.entity.state.journal import Journal
from kuber.entity.state.storage import Storage
from kuber.errors import ConflictError, ServiceUnavailableError


class HubSession:
    """An entity's session with registry and vault, for the life of its process."""

    def __init__(
        self, journal: Journal, evaluator: Evaluator, hub: HubAccess, storage: Storage, sharing: Sharing
    ) -> None:
        trust = Trust(hub, journal)
        self.availability = HubAvailability(journal)
        self.outbox = Outbox(hub, journal, availability=self.availability, pending=storage.pending)
        self.discovery = Discovery(
            journal,
            evaluator,
            hub,
            storage,
            outbox=self.outbox,
            trust=trust,
            verified_only=sharing.verified_only,
        )
        self.publisher = Publisher(journal, evaluator, sharing, outbox=self.outbox, trust=trust)
        self._journal = journal
        self._model = evaluator.model
        self._hub = hub
        self._sharing = sharing
        self._joined = False  # in this process

    @property
    def entity_id(self) -> str:
        """The entity's id at the registry."""
        entity_id = self._journal.state.entity_id
        assert entity_id is not None, "nothing is done before the entity has joined"
        return entity_id

    def join_and_flush(self) -> None:
        """Join if necessary and flush the outbox; continue offline if the hub is unreachable.

        Raises ServiceUnavailableError when it is unreachable and the entity has never joined, ConflictError when it
        is another hub than the one that the entity joined.
        """
        journal = self._journal
        self.availability.reset()
        if not self._joined:
            try:
                member = self._hub.registry.register(journal.name, public_key=self._hub.identity.public_key)
            except ServiceUnavailableError as error:
                if journal.state.entity_id is None:
                    raise
                self.availability.mark_down(error)
                return
            if journal.state.entity_id is None:
                journal.change(entity_id=member.id, sequence=member.sequence)
                self._log_joined()
            elif journal.state.entity_id != member.id:
                raise ConflictError(
                    f"This is another registry than the one that entity {journal.name!r} joined. Use that one, "
                    "or start a new run."
                )
            self._joined = True
        self.outbox.flush()

    def require_flushed(self) -> None:
        """Raise ServiceUnavailableError when messages to the hub are queued."""
        if self.outbox.blocked_by:
            raise ServiceUnavailableError(
                f"All rounds are done, but {len(self._journal.state.outbox)} messages to the hub are queued in the "
                f"entity's folder; resume when the hub is back. {self.outbox.blocked_by}"
            )

    def published_count(self) -> int:
        """Return how many records of this entity the registry has."""
        return self._hub.registry.member(self.entity_id).sequence

    def report(self, evaluation: Evaluation) -> None:
        """Report round and evaluation to the registry, if the owner allows it and the hub is reachable."""
        if self._sharing.report:
            report = self._hub.registry.report
            round = self._journal.state.round
            self.availability.call(partial(report, self.entity_id, round=round, evaluation=evaluation), None)

    def record(self, absorption: Absorption, *, key: str) -> None:
        """Record an absorption at the registry and in the log."""
        delivery = absorption.delivery
        if not self._sharing.report:  # a reason reveals how good the model is, class by class
            delivery = replace(delivery, reason=None)
        self.outbox.record(delivery, key=key)
        self._journal.append("absorbed", absorption.detail)

    def _log_joined(self) -> None:
        model = self._model
        detail = {
            "id": self.entity_id,
            "samples": model.sample_count or 0,
            "class_counts": model.class_counts or (),
            "architecture": model.architecture.name,
            "device": model.runtime.device,
            "precision": model.runtime.precision,
            "threads": model.runtime.threads,
        }
        self._journal.append("joined", detail)
        self._journal.save()
