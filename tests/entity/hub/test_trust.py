"""Checks of a record's signature, independent of the registry."""

from dataclasses import replace

import pytest

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.record_signature import check_publisher, check_signed, sign
from kuber.domain.member import SEQUENCE_STEP, Key
from kuber.domain.query import Query
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.trust import Trust
from kuber.errors import CorruptKnowledgeError, RequestRejectedError, ServiceError
from kuber.wire.registry import KnowledgeBody, MemberBody
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
    session = student._session
    return Trust(hub, student._journal, availability=session.availability, alerts=session.alerts)


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
    later = replace(record, sequence=record.sequence + 1, signature=None, prior=None, prior_signature=None)
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


OLD_RECORD = (  # as a version signed it that knew no hubs
    '{"entity":"01a22e12cbc329ca99336904718602f0","task":{"name":"parity","labels":["even","odd"],"input_shape":[1,2,2],'
    '"test_set":"sha256:92a5dc04bd6f9fb8f29f8066fed8a5c1e81bc59ad48a11283b63736867e4f2a8"},"architecture":{"name":"line",'
    '"arguments":{"width":4},"manifest":{"weight":{"dtype":"F32","shape":[2,4]}}},"artifacts":{"weights":{"digest":'
    '"sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c","size":100}},"evaluation":{"test_set":'
    '"sha256:92a5dc04bd6f9fb8f29f8066fed8a5c1e81bc59ad48a11283b63736867e4f2a8","correct":[60,40],"total":[100,100]},'
    '"round":3,"parents":[],"sequence":7,"signature":"d1af0e4fc39a5fe5475e62ef297b17ea2d36747cea20d3d32e625ed65473ee13'
    '4d4416a09dabc77421d5779b1ac85e71132aaf20018fd5b7515521f4b3367b02","id":"01a22e12cbc329ca99336904718602f1",'
    '"published_at":"2026-11-30T00:00:00Z"}'
)
OLD_MEMBER = (
    '{"id":"01a22e12cbc329ca99336904718602f0","name":"ward 7","registered_at":"2026-11-01T00:00:00Z","sequence":7,'
    '"keys":[{"public_key":"3d1abea3e07fa3e6f52e9cfd47b860fa38ce133e2d7d927fc3dd55e8228074f4","since":0},{"public_key":'
    '"615843e1112e31ec56256fc558bbc4e55e423d353ffc946053c5dddea3265b1d","since":5,"signature":"08f0472981d41ae1e317ebe'
    '2e3cf3b2441740a4aa59e234f9973c9aee298215b9521eebfacf36aed08912964e21fec4777676c02d4d8ea7d553ae5c21ec46702"}]}'
)


@pytest.mark.parametrize("hub", [None, "a" * 64])
def test_signatures_of_older_versions_are_valid_to_read(hub):
    record, member = KnowledgeBody.read(OLD_RECORD).value(), MemberBody.read(OLD_MEMBER).value()
    last = member.keys[-1].public_key
    assert check_publisher(member, None, hub=hub) == last
    check_signed(record, member, hub=hub)
    with pytest.raises(CorruptKnowledgeError):
        check_signed(replace(record, hub="a" * 64), member, hub=hub)


def test_records_and_keys_for_another_hub_are_refused(world, trust, student, record):
    student._journal.change(hub=world.registry.hub_id())
    assert record.hub == world.registry.hub_id()
    trust.check(record)
    elsewhere = sign(record.draft, identity("teacher"), hub="b" * 64)
    forged = replace(record, hub=elsewhere.hub, signature=elsewhere.signature)
    with pytest.raises(CorruptKnowledgeError, match="is signed for hub bbbbbbbbbbbb"):
        trust.check(forged)
    with pytest.raises(CorruptKnowledgeError, match="is not signed with the key"):
        trust.check(replace(forged, hub=None))
    key = Key(public_key=identity("anew").public_key, since=9, hub="b" * 64)
    key = replace(key, signature=identity("teacher").sign(succession_bytes(record.entity, key)))
    member = world.registry.member(record.entity)
    world.registry._members[member.name] = replace(member, keys=(*member.keys, key))
    with pytest.raises(CorruptKnowledgeError, match="The new key of 'teacher' is signed for hub bbbbbbbbbbbb"):
        trust.check(record)


def test_an_entity_signs_for_the_hub_that_it_has_joined(world):
    world.live("a", [50, 60], rounds=2)
    assert {record.hub for record in world.registry.discover(Query()).items} == {world.registry.hub_id()}


@pytest.mark.parametrize("sequence", [2**62, SEQUENCE_STEP + 1])
def test_a_sequence_that_a_registry_makes_up_is_not_followed(world, sequence):
    class Lying(MemoryRegistry):
        def register(self, name, *, public_key=None):
            return replace(super().register(name, public_key=public_key), sequence=sequence)

    lying = Lying(vault=world.vault, clock=world.clock, ids=lambda: "id")
    with pytest.raises(ServiceError, match=f"has published record {sequence}, and it knows of 0 itself"):
        world.live("a", [], rounds=1, registry=lying)


def test_one_identity_counts_at_each_hub_for_itself(world):
    other = MemoryRegistry(vault=world.vault, clock=world.clock, ids=lambda: "id of another hub")
    world.live("a", [50, 60], rounds=2)
    key = identity("a")
    member = other.register("a", public_key=key.public_key)
    assert member.sequence == 0
    (record, *_) = world.registry.discover(Query()).items
    with pytest.raises(CorruptKnowledgeError, match="is signed for hub"):
        other.publish(replace(record.draft, entity=member.id), key="replayed")


def test_a_record_that_waits_since_an_older_version_is_sent(world):
    """Its hub took records that name none, until the first that does."""
    world.live("a", [50], rounds=1)
    (record,) = world.registry.discover(Query()).items
    waiting = sign(replace(record.draft, sequence=2), identity("a"), hub=None)

    class Strict(MemoryRegistry):
        def publish(self, draft, *, key):
            if draft.hub is None:
                raise RequestRejectedError("The signature is for no hub in particular.")
            return world.registry.publish(draft, key=key)

    strict = Strict(vault=world.vault, clock=world.clock, ids=lambda: "id")
    outbox = world.entity("a", rounds=2, registry=strict)._session.outbox
    outbox._journal.change(entity_id=record.entity, hub=world.registry.hub_id())
    assert outbox._publish_record(waiting, key="waited").sequence == 2


def test_a_key_signed_by_the_hub_in_place_of_a_lost_one_is_trusted_and_warned_of(world, trust, student, record):
    hub, new = identity("hub"), identity("teacher anew")
    student._journal.change(hub=hub.public_key)
    record = sign(record, identity("teacher"), hub=hub.public_key)
    trust.check(record)
    key = Key(public_key=new.public_key, since=record.sequence + 1, hub=hub.public_key, by_hub=True)
    key = replace(key, signature=hub.sign(succession_bytes(record.entity, key)))
    member = world.registry.member(record.entity)
    world.registry._members[member.name] = replace(member, keys=(*member.keys, key))
    later = sign(replace(record, sequence=record.sequence + 1), new, hub=hub.public_key)
    trust.check(later)
    trust.check(later)
    assert student._journal.state.pinned_keys[record.entity] == new.public_key
    (detail,) = world.events("student", "rekeyed")
    assert (detail["name"], detail["since"]) == ("teacher", record.sequence + 1)
    student._journal.change(hub=identity("another hub").public_key, pinned_keys={})
    with pytest.raises(CorruptKnowledgeError):
        trust.check(later)
