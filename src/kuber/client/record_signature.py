"""Check of a record's signature against the keys of its publisher."""

from dataclasses import replace

from kuber.domain.knowledge import Draft, Knowledge
from kuber.domain.member import Key, Member
from kuber.errors import CorruptKnowledgeError
from kuber.signing import Identity, check_hub, check_keys, check_prior, check_signature
from kuber.wire.signing_payloads import prior_bytes, record_bytes, succession_bytes


def sign(draft: Draft, identity: Identity, *, hub: str | None) -> Draft:
    """Return the draft with a signature that is valid at this hub alone; at any, for an older one without an id."""
    unsigned = replace(draft, hub=hub, signature=None, prior_signature=None)
    signed = replace(unsigned, signature=identity.sign(record_bytes(unsigned)))
    return signed if draft.prior is None else replace(signed, prior_signature=identity.sign(prior_bytes(signed)))


def check_publisher(member: Member, pinned: str | None, *, hub: str | None) -> str | None:
    """Check the keys of a member at this hub against the `pinned` one, if any; return its last key.

    Raises CorruptKnowledgeError unless each key after the pinned one is signed with the key before it.
    """
    keys = [key.public_key for key in member.keys]
    if pinned is None:
        start = 0
    elif pinned in keys:
        start = keys.index(pinned)
    else:
        raise CorruptKnowledgeError(
            f"The registry names other keys of entity {member.name!r} than before; do not use what it publishes."
        )
    for key in member.keys[start + 1 :]:
        check_hub(key.hub, hub, f"The new key of {member.name!r}")
    check_keys(member, succession_bytes, start=start, hub=hub)
    return keys[-1] if keys else None


def replaced_by_hub(member: Member, pinned: str | None) -> Key | None:
    """Return the last key that the hub signed in place of a lost one since the `pinned` key, if there is one."""
    keys = [key.public_key for key in member.keys]
    later = member.keys[keys.index(pinned) + 1 :] if pinned in keys else ()
    return next((key for key in reversed(later) if key.by_hub), None)


def check_signed(knowledge: Knowledge, publisher: Member, *, hub: str | None) -> None:
    """Raise CorruptKnowledgeError unless the record is signed with the publisher's key for it, and for this hub."""
    check_hub(knowledge.hub, hub, f"The record {knowledge.id}")
    key = publisher.key_for(knowledge.sequence) if publisher.id == knowledge.entity else None
    if key is None or knowledge.signature is None:
        raise CorruptKnowledgeError(f"The record {knowledge.id} is not signed; do not use it.")
    check_signature(key.public_key, knowledge.signature, record_bytes(knowledge), f"The record {knowledge.id}")
    check_prior(key.public_key, knowledge, prior_bytes(knowledge), f"The prior of the record {knowledge.id}")
