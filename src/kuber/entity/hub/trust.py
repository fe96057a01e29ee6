"""Trust: sign what an entity publishes, and check the signatures of what it pulls."""

from dataclasses import replace

from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Member
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.state.journal import Journal
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.signing import check_keys, check_signature
from kuber.wire.signing_payloads import record_bytes, succession_bytes


class Trust:
    """An entity's own key, and those of others: the first key seen of an entity is pinned in the journal."""

    def __init__(self, hub: HubAccess, journal: Journal, *, availability: HubAvailability) -> None:
        self._availability = availability
        self._hub = hub
        self._journal = journal

    def sign(self, draft: Draft) -> Draft:
        """Return the draft with this entity's signature."""
        return replace(draft, signature=self._hub.identity.sign(record_bytes(draft)))

    def check(self, knowledge: Knowledge) -> Member:
        """Check a record's signature, and return its publisher.

        Raises CorruptKnowledgeError unless the record is signed with the publisher's pinned key or a successor of it.
        """
        try:
            with self._availability.using("registry"):
                publisher = self._hub.registry.member(knowledge.entity)
        except KnowledgeNotFoundError:
            raise CorruptKnowledgeError(f"The registry does not know the publisher of {knowledge.id}.") from None
        self._check_keys(publisher)
        key = publisher.key_for(knowledge.sequence)
        if key is None or knowledge.signature is None:
            raise CorruptKnowledgeError(f"The record {knowledge.id} is not signed; do not use it.")
        check_signature(key.public_key, knowledge.signature, record_bytes(knowledge), f"The record {knowledge.id}")
        return publisher

    def _check_keys(self, member: Member) -> None:
        """Check that each key after the pinned one is signed with the key before it, and pin the last."""
        pinned_keys = self._journal.state.pinned_keys
        pinned = pinned_keys.get(member.id)
        keys = [key.public_key for key in member.keys]
        if pinned is None:
            start = 0
        elif pinned in keys:
            start = keys.index(pinned)
        else:
            raise CorruptKnowledgeError(
                f"The registry names other keys of entity {member.name!r} than before; do not use what it publishes."
            )
        check_keys(member, succession_bytes, start=start)
        if keys and keys[-1] != pinned:
            self._journal.change(pinned_keys={**pinned_keys, member.id: keys[-1]})
