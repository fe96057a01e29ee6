"""A lost key: the operator allows a new one, which the hub signs, and students accept it with a warning."""

from dataclasses import replace

import pytest

from kuber.client.admin import AdminClient
from kuber.client.credentials import Credentials
from kuber.client.record_signature import check_publisher, replaced_by_hub
from kuber.client.registry import HttpRegistry
from kuber.errors import ConflictError, CorruptKnowledgeError, NotAuthorizedError, RequestRejectedError
from kuber.signing import Identity
from kuber.wire.signing_payloads import succession_bytes


@pytest.fixture
def operator(hub):
    with AdminClient(hub.registry, hub.operator) as client:
        yield client


@pytest.fixture
def lost(hub, samples):
    """An entity that has joined: its name, and the client with the key that is lost."""
    name = samples.name()
    with HttpRegistry(hub.registry) as registry:
        registry.register(name)
        yield name, registry


def joined(hub, name, code, identity=None):
    with HttpRegistry(hub.registry, credentials=Credentials(identity, invitation=code)) as registry:
        return registry.register(name)


def test_a_new_key_takes_the_place_of_a_lost_one(hub, operator, lost):
    name, before = lost
    member = operator.entity(name)
    code = operator.allow_new_key(member.id)
    assert before.register(name).keys == member.keys  # until the code is used
    new = Identity.generate()
    again = joined(hub, name, code, new)
    assert (again.id, again.name, again.sequence) == (member.id, name, member.sequence)
    assert [key.public_key for key in again.keys] == [member.keys[0].public_key, new.public_key]
    assert again.key_for(member.sequence) == member.keys[0]  # earlier records stay signed with it
    with pytest.raises(ConflictError, match="belongs to another key"):
        before.register(name)
    with pytest.raises(NotAuthorizedError, match="has been used"):
        joined(hub, name, code)
    assert joined(hub, name, code, new) == again  # its answer may have been lost
    acts = [(entry.actor, entry.act) for entry in operator.audit_entries(entity=member.id)]
    assert acts[-2:] == [("admin", "rekey"), (member.id, "change-key")]


def test_a_student_trusts_the_new_key_by_the_hubs_signature_alone(hub, operator, lost):
    name, before = lost
    old = operator.entity(name)
    member = joined(hub, name, operator.allow_new_key(old.id))
    pinned, hub_id = old.keys[0].public_key, before.hub_id()
    assert check_publisher(member, pinned, hub=hub_id) == member.keys[1].public_key
    assert replaced_by_hub(member, pinned) == member.keys[1]
    assert replaced_by_hub(member, member.keys[1].public_key) is None
    for other in (None, Identity.generate().public_key):
        with pytest.raises(CorruptKnowledgeError):
            check_publisher(member, pinned, hub=other)
    stranger = Identity.generate()
    forged = replace(member.keys[1], public_key=stranger.public_key)
    forged = replace(forged, signature=stranger.sign(succession_bytes(member.id, replace(forged, signature=None))))
    with pytest.raises(CorruptKnowledgeError):
        check_publisher(replace(member, keys=(member.keys[0], forged)), pinned, hub=hub_id)


def test_a_code_is_for_one_entity_and_no_invitation_is_for_a_lost_key(hub, operator, lost, samples):
    name, _ = lost
    id, other = operator.entity(name).id, samples.name("other")
    code = operator.allow_new_key(id)
    joined(hub, other, None)
    with pytest.raises(ConflictError):
        joined(hub, other, code)
    with pytest.raises(ConflictError):
        joined(hub, name, operator.invite(name))
    operator.revoke(id, block=True)
    with pytest.raises(NotAuthorizedError, match="blocked"):
        joined(hub, name, code)


def test_an_entity_cannot_say_that_the_hub_signed_its_key(hub, lost):
    name, registry = lost
    member = registry.register(name)
    key = replace(
        member.keys[0], public_key=Identity.generate().public_key, since=1, by_hub=True, hub=registry.hub_id()
    )
    signed = replace(key, signature=registry.credentials.identity.sign(succession_bytes(member.id, key)))
    with pytest.raises(RequestRejectedError):
        registry.change_key(member.id, signed)
