"""Restoration of a hub from an older backup: what it has lost of an entity, and messages without what is lost."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from kuber.domain.knowledge import Draft
from kuber.domain.member import Member
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.state.journal import Journal
from kuber.entity.state.messages import DeliveryReport, OutboxMessage, Publication
from kuber.errors import KnowledgeNotFoundError, KUberError, NotAuthorizedError

MAX_COMPARED = 20  # objects of the hub that are looked for at a registry, to find out whether it is the same hub


class Restoration:
    """Compares what an entity knows of its hub with what the hub has, after it may have been restored.

    `lost` is how many records of this entity the hub no longer has, and that its newest model should be published
    again.
    """

    def __init__(
        self,
        hub: HubAccess,
        journal: Journal,
        *,
        availability: HubAvailability,
        alerts: Alerts,
        sign: Callable[[Draft], Draft],
    ) -> None:
        self.lost = 0
        self._hub = hub
        self._journal = journal
        self._availability = availability
        self._alerts = alerts
        self._sign = sign

    def without_lost(self, message: OutboxMessage) -> OutboxMessage | None:
        """Return a refused message without the records that the registry no longer has.

        None when it has all, or nothing is left of the message.
        """
        match message:
            case Publication(draft=draft):
                parents = self._known(draft.parents)
                if len(parents) == len(draft.parents):
                    return None
                self._warn_of_records(len(draft.parents) - len(parents))
                return replace(message, draft=self._sign(replace(draft, parents=parents, signature=None)))
            case DeliveryReport(delivery=delivery):
                teachers = self._known(delivery.teachers)
                if not teachers or len(teachers) == len(delivery.teachers):
                    return None
                self._warn_of_records(len(delivery.teachers) - len(teachers))
                return replace(message, delivery=replace(delivery, teachers=teachers))
        return None

    def is_member(self) -> bool:
        """Return whether the hub still has this entity, as far as it can be asked; compare with what it has."""
        entity_id = self._journal.state.entity_id
        if entity_id is None or not self._availability.up:
            return True
        try:
            with self._availability.using("registry"):
                member = self._hub.registry.member(entity_id)
        except (KnowledgeNotFoundError, NotAuthorizedError):
            return False
        except KUberError:
            return True  # a call that needs the registry says what is wrong
        self.compare(member)
        return True

    def compare(self, member: Member) -> None:
        """Have the newest model published again if the hub has lost records of this entity."""
        acknowledged = self._journal.state.acknowledged
        if member.sequence < acknowledged:
            self._take_note(acknowledged - member.sequence)
            self._journal.change(acknowledged=member.sequence)

    def is_same_hub(self, hub: str | None) -> bool:
        """Return whether the registry, which has proved that it is `hub`, is that of this entity's hub.

        A hub of an older version has no id; it is the same if it has anything that this entity saw: ids are random.
        """
        state, registry = self._journal.state, self._hub.registry
        if state.hub is not None and hub is not None:
            return state.hub == hub
        for id, key in list(state.pinned_keys.items())[:MAX_COMPARED]:
            try:
                if any(known.public_key == key for known in registry.member(id).keys):
                    return True
            except KnowledgeNotFoundError:
                continue
        return bool(self._known([*state.first_seen][:MAX_COMPARED]))

    def readdress(self, member: Member) -> None:
        """Continue as this member: the hub has lost the entity, which has joined again under a new id."""
        state = self._journal.state
        self._journal.change(
            entity_id=member.id,
            sequence=max(member.sequence, state.sequence),
            outbox=tuple(self._readdressed(message, member.id) for message in state.outbox),
        )
        if state.acknowledged:
            self._take_note(state.acknowledged)
            self._journal.change(acknowledged=0)
        self._alerts.warn("The hub had lost this entity, which has joined again under a new id.")

    def done(self) -> None:
        """Take note that the newest model has been published again."""
        self.lost = 0

    def _take_note(self, lost: int) -> None:
        self.lost = lost
        sentence = (
            f"The hub lacks {lost} records that this entity has published: it was restored from an older backup. The "
            "entity publishes its newest model again."
        )
        self._alerts.add("restored", {"lost": lost, "left_out": 0}, sentence)

    def _readdressed(self, message: OutboxMessage, id: str) -> OutboxMessage:
        match message:
            case Publication(draft=draft):
                return replace(message, draft=self._sign(replace(draft, entity=id, signature=None)))
            case DeliveryReport(delivery=delivery):
                return replace(message, delivery=replace(delivery, student=id))
        return message

    def _known(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Return those of these records that the registry has."""
        known = []
        for id in ids:
            try:
                with self._availability.using("registry"):
                    self._hub.registry.knowledge(id)
            except KnowledgeNotFoundError:
                continue
            known.append(id)
        return tuple(known)

    def _warn_of_records(self, lost: int) -> None:
        sentence = (
            f"The hub no longer has {lost} records that this entity learned from, as after the restoration of an "
            "older backup; a message goes without them."
        )
        self._alerts.add("restored", {"lost": 0, "left_out": lost}, sentence, cause="left out")
