"""Trust: sign what an entity publishes, and check the signatures of what it pulls."""

from kuber.client.record_signature import check_publisher, check_signed, replaced_by_hub, sign
from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Member
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.state.journal import Journal
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError, ServiceError
from kuber.signing import check_step


class Trust:
    """An entity's own key, and those of others: the first key seen of an entity is pinned in the journal."""

    def __init__(self, hub: HubAccess, journal: Journal, *, availability: HubAvailability, alerts: Alerts) -> None:
        self._alerts = alerts
        self._availability = availability
        self._hub = hub
        self._journal = journal

    def sign(self, draft: Draft) -> Draft:
        """Return the draft with this entity's signature."""
        return sign(draft, self._hub.identity, hub=self._journal.state.hub)

    def check(self, knowledge: Knowledge) -> Member:
        """Check a record's signature, and return its publisher.

        Raises CorruptKnowledgeError unless the record is signed with the publisher's pinned key or a successor of it.
        """
        try:
            with self._availability.using("registry"):
                publisher = self._hub.registry.member(knowledge.entity)
        except KnowledgeNotFoundError:
            raise CorruptKnowledgeError(f"The registry does not know the publisher of {knowledge.id}.") from None
        pinned_keys = self._journal.state.pinned_keys
        pinned = pinned_keys.get(publisher.id)
        last = check_publisher(publisher, pinned, hub=self._journal.state.hub)
        if last is not None and last != pinned:
            self._warn_of_replaced_key(publisher, pinned)
            self._journal.change(pinned_keys={**pinned_keys, publisher.id: last})
        check_signed(knowledge, publisher, hub=self._journal.state.hub)
        return publisher

    def _warn_of_replaced_key(self, publisher: Member, pinned: str | None) -> None:
        """Alert that the operator of the hub has replaced the key of an entity, whose former one is pinned here."""
        key = replaced_by_hub(publisher, pinned)
        if key is not None:
            detail = {"entity": publisher.id, "name": publisher.name, "key": key.public_key, "since": key.since}
            self._alerts.add(
                "rekeyed",
                detail,
                f"Entity {publisher.name!r} signs with a new key from its record {key.since} on. The hub signed it, "
                "as the former one was lost; if its owner did not lose it, somebody at the hub acts in its name.",
            )


def check_last_record(claimed: int, own: int) -> None:
    """Raise ServiceError when a registry claims so many more records than this entity knows of."""
    try:
        check_step(claimed, own)
    except RequestRejectedError:
        raise ServiceError(
            f"The registry says that this entity has published record {claimed}, and it knows of {own} itself; do "
            "not trust that registry, or have its operator correct it."
        ) from None
