"""Signing what an entity publishes, and checking that what it pulls was signed by who it says."""

from dataclasses import replace

from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Member
from kuber.domain.ports import Registry
from kuber.entity.state.journal import Journal
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.signing import Identity, check_keys, check_signature
from kuber.wire import record_bytes, succession_bytes


class Trust:
    """An entity's own key, and those of others: the first key seen of an entity is pinned, in the journal."""

    def __init__(self, identity: Identity, *, registry: Registry, journal: Journal) -> None:
        self._identity = identity
        self._registry = registry
        self._journal = journal

    def signed(self, draft: Draft) -> Draft:
        """The draft with our signature."""
        return replace(draft, signature=self._identity.sign(record_bytes(draft)))

    def check(self, knowledge: Knowledge) -> None:
        """CorruptKnowledgeError unless its publisher signed the record, with the key that we know it by.

        A key that followed is trusted when each is vouched for by the one before.
        """
        try:
            member = self._registry.member(knowledge.entity)
        except KnowledgeNotFoundError:
            raise CorruptKnowledgeError(f"The registry does not know who published {knowledge.id}.") from None
        self._check_keys(member)
        key = member.key_for(knowledge.sequence)
        if key is None or knowledge.signature is None:
            raise CorruptKnowledgeError(f"The record {knowledge.id} is not signed; do not use it.")
        check_signature(key.public_key, knowledge.signature, record_bytes(knowledge), f"The record {knowledge.id}")

    def _check_keys(self, member: Member) -> None:
        """That the keys follow from the one we know this member by, which becomes the last of them."""
        known = self._journal.state.keys
        pinned = known.get(member.id)
        held = [key.public_key for key in member.keys]
        if pinned is None:
            start = 0
        elif pinned in held:
            start = held.index(pinned)
        else:
            raise CorruptKnowledgeError(
                f"The registry names other keys of entity {member.name!r} than before; do not use what it publishes."
            )
        check_keys(member, succession_bytes, start=start)
        if held and held[-1] != pinned:
            self._journal.change(keys={**known, member.id: held[-1]})
