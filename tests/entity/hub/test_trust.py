"""Checks of a record's signature, independent of the registry."""

from dataclasses import replace

import pytest

from kuber.domain.member import Key
from kuber.domain.query import Query
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.trust import Trust
from kuber.errors import CorruptKnowledgeError
from kuber.wire.signing_payloads import record_bytes, succession_bytes

from ..scripted_entities import identity


@pytest.fixture
def record(world):
    """A record that a teacher published."""
    world.live("teacher", [50], rounds=1)
    (found,) = world.registry.discover(Query()).items
    return found


@pytest.fixture
def student(world):
    return world.entity("student", rounds=1)


@pytest.fixture
def trust(world, student):
    hub = HubAccess(registry=world.registry, vault=world.vault, identity=identity("student"))
    return Trust(hub, student._journal, availability=student._session.availability)


def test_a_record_of_its_publisher_is_trusted_and_its_key_pinned(world, trust, student, record):
    trust.check(record)
    assert student._journal.state.pinned_keys == {record.entity: identity("teacher").public_key}


@pytest.mark.parametrize(
    "change",
    [{"round": 9}, {"sequence": 9}, {"signature": None}, {"signature": "0" * 128}, {"sample_count": 10**6}],
    ids=str,
)
def test_a_record_that_was_changed_is_refused(trust, record, change):
    with pytest.raises(CorruptKnowledgeError, match="not signed"):
        trust.check(replace(record, **change))


def test_a_key_changed_by_the_registry_is_detected(world, trust, record):
    trust.check(record)
    member = world.registry.member(record.entity)
    forger = identity("forger")
    world.registry._members[member.name] = replace(member, keys=(Key(public_key=forger.public_key),))
    forged = replace(record, signature=forger.sign(record_bytes(record)))
    with pytest.raises(CorruptKnowledgeError, match="other keys of entity 'teacher' than before"):
        trust.check(forged)


def test_a_key_signed_by_the_last_one_is_trusted(world, trust, student, record):
    trust.check(record)
    old, new = identity("teacher"), identity("teacher anew")
    key = Key(public_key=new.public_key, since=record.sequence + 1)
    key = replace(key, signature=old.sign(succession_bytes(record.entity, key)))
    world.registry.change_key(record.entity, key)
    trust.check(record)  # signed with the old key, which was right then
    later = replace(record, sequence=record.sequence + 1, signature=None)
    trust.check(replace(later, signature=new.sign(record_bytes(later))))
    assert student._journal.state.pinned_keys == {record.entity: new.public_key}
    with pytest.raises(CorruptKnowledgeError):
        trust.check(replace(later, signature=old.sign(record_bytes(later))))


def test_a_new_key_without_a_valid_signature_is_refused(world, trust, record):
    trust.check(record)
    member = world.registry.member(record.entity)
    key = Key(public_key=identity("forger").public_key, since=record.sequence + 1, signature="0" * 128)
    world.registry._members[member.name] = replace(member, keys=(*member.keys, key))
    with pytest.raises(CorruptKnowledgeError, match="The new key of 'teacher' is not signed"):
        trust.check(record)


def test_an_unsigned_record_is_refused(world):
    """A teacher without a key may publish in memory; a student rejects its record and continues to train."""
    world.live("teacher", [90], rounds=1)
    (record,) = world.registry.discover(Query()).items
    place = world.registry._places[record.id]
    world.registry._records[place] = replace(record, signature=None)
    world.live("student", [50, 40], rounds=2)
    (rejected,) = world.events("student", "rejected")
    assert rejected["knowledge"] == record.id
    assert "not signed" in rejected["reason"]
