"""Contract of every registry: keys of members and signed records."""

from dataclasses import replace

import pytest

from kuber.client.record_signature import check_signed, sign
from kuber.client.registry import HttpRegistry
from kuber.domain.member import Key
from kuber.errors import ConflictError, CorruptKnowledgeError, KnowledgeNotFoundError, RequestRejectedError
from kuber.signing import Identity
from kuber.wire.signing_payloads import record_bytes, succession_bytes


def test_a_member_is_found_by_its_id(registry, entity):
    (member,) = [member for member in registry.members(limit=1000).items if member.id == entity]
    assert registry.member(entity) == member
    with pytest.raises(KnowledgeNotFoundError):
        registry.member("nobody")


def as_signed(registry, draft, *, key):
    """Publish a draft as it is; the registry fixture would sign it."""
    plain = HttpRegistry if isinstance(registry, HttpRegistry) else type(registry)
    return plain.publish(registry, draft, key=key)


@pytest.fixture
def signer(registry, samples):
    """Return an entity with a key, and the key."""
    identity = registry.credentials.identity if isinstance(registry, HttpRegistry) else Identity.generate()
    return registry.register(samples.name("signer"), public_key=identity.public_key), identity


def test_a_name_belongs_to_a_key(registry, signer):
    member, identity = signer
    assert registry.register(member.name, public_key=identity.public_key) == member
    with pytest.raises(ConflictError):
        registry.register(member.name, public_key=Identity.generate().public_key)


def test_signatures_and_sequences_are_kept(registry, signer, samples, stored):
    member, identity = signer
    draft = replace(samples.draft(member.id, stored), sequence=7)
    signed = replace(draft, signature=identity.sign(record_bytes(draft)))
    record = as_signed(registry, signed, key="one")
    assert (record.sequence, record.signature) == (7, signed.signature)
    assert as_signed(registry, signed, key="one") == record
    assert registry.member(member.id).sequence == 7
    for sequence in (6, 7):
        late = replace(draft, sequence=sequence)
        late = replace(late, signature=identity.sign(record_bytes(late)))
        with pytest.raises(ConflictError, match="send each signed record once"):
            as_signed(registry, late, key=f"late {sequence}")


@pytest.mark.parametrize("change", [{"round": 3}, {"signature": "0" * 128}, {"sequence": 8}])
def test_a_changed_record_is_refused(registry, signer, samples, stored, change):
    member, identity = signer
    draft = replace(samples.draft(member.id, stored), sequence=7)
    signed = replace(draft, signature=identity.sign(record_bytes(draft)))
    with pytest.raises(CorruptKnowledgeError):
        as_signed(registry, replace(signed, **change), key="one")
    with pytest.raises(RequestRejectedError, match="sign it"):
        as_signed(registry, draft, key="two")


def test_the_prior_of_a_record_has_a_signature_of_its_own(registry, signer, samples, stored):
    member, identity = signer
    draft = replace(samples.draft(member.id, stored, prior="own"), sequence=1)
    signed = sign(draft, identity, hub=None)
    for change in ({"prior": "uniform"}, {"prior_signature": None}, {"prior_signature": signed.signature}):
        with pytest.raises(CorruptKnowledgeError, match="The prior of the record is not signed"):
            as_signed(registry, replace(signed, **change), key="one")
    record = as_signed(registry, signed, key="one")
    check_signed(record, member, hub=None)
    with pytest.raises(CorruptKnowledgeError, match="The prior of the record"):
        check_signed(replace(record, prior="uniform"), member, hub=None)
    # A reader that does not know the field leaves it out, and finds the record signed.
    check_signed(replace(record, prior=None, prior_signature=None), member, hub=None)


def test_a_key_replaces_another(registry, signer):
    member, identity = signer
    key = Key(public_key=Identity.generate().public_key, since=5)
    with pytest.raises(RequestRejectedError):
        registry.change_key(member.id, key)
    with pytest.raises(CorruptKnowledgeError):
        registry.change_key(member.id, replace(key, signature="0" * 128))
    signed = replace(key, signature=identity.sign(succession_bytes(member.id, key)))
    changed = registry.change_key(member.id, signed)
    assert changed.keys == (*member.keys, signed)
    assert registry.change_key(member.id, signed) == changed
    assert registry.member(member.id).key_for(4) == member.keys[0]
    assert registry.member(member.id).key_for(5) == signed
