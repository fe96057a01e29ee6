"""Identity of a hub: what is signed for one hub is worth nothing at another, nor a second time at the same."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from kuber.client.record_signature import sign
from kuber.domain.member import MAX_SEQUENCE, SEQUENCE_STEP, Key
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceUnavailableError,
)
from kuber.services.registry import used_enrolments as used
from kuber.services.registry.access import RegistryAccess
from kuber.services.registry.schema import used_enrolments
from kuber.services.registry.store import RegistryStore, sortable_id
from kuber.signing import Identity, check_signature
from kuber.wire.registry import ChallengeRequest, EnrolmentBody
from kuber.wire.signing_payloads import challenge_bytes, enrolment_bytes, succession_bytes
from tests.fixtures.databases import new_sqlite

from ..stores import signed_by

OURS = "0" * 64


@pytest.fixture
def site(tmp_path, vault_store, clock):
    """Make a hub on a database of its own, whose clock can be moved on."""
    opened = []

    def make(name, path=None):
        late = timedelta(0)
        database = path or new_sqlite(tmp_path / f"{name}.sqlite", "registry")
        store = RegistryStore(database, vault=vault_store, clock=clock)
        opened.append(store)
        made = SimpleNamespace(store=store, path=database, late=late)
        made.now = lambda: clock() + made.late
        made.access = RegistryAccess(store.database, clock=made.now, ids=sortable_id, open_enrolment=True)
        return made

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def hub(site):
    return site("hub")


@pytest.fixture
def identity():
    return Identity.generate()


def wish(identity, place, *, name="ward 7", **changes):
    """A request to join this hub, signed."""
    challenge = place.access.challenge(ChallengeRequest(nonce=OURS))
    fields = {"name": name, "public_key": identity.public_key, "at": place.now()}
    unsigned = EnrolmentBody(**fields | {"hub": challenge.hub, "nonce": challenge.nonce} | changes)
    return unsigned.model_copy(update={"signature": identity.sign(enrolment_bytes(unsigned))})


def old_wish(identity, hub):
    """A request to join as older versions sign it: for no hub in particular."""
    return wish(identity, hub, hub=None, nonce=None)


def test_the_id_is_made_once_and_is_that_of_one_hub(site, hub):
    assert hub.store.hub_id() == hub.access.hub.id
    assert site("other").store.hub_id() != hub.store.hub_id()
    hub.store.close()
    assert site("again", hub.path).store.hub_id() == hub.store.hub_id()


def test_a_hub_proves_its_id(hub):
    challenge = hub.access.challenge(ChallengeRequest(nonce=OURS))
    assert challenge.hub == hub.store.hub_id()
    proof = challenge.signature, challenge_bytes(challenge.hub, challenge.nonce, OURS)
    check_signature(challenge.hub, *proof, "The answer")
    with pytest.raises(CorruptKnowledgeError):
        check_signature(challenge.hub, proof[0], challenge_bytes(challenge.hub, challenge.nonce, "1" * 64), "It")
    assert hub.access.challenge(ChallengeRequest(nonce=OURS)).nonce != challenge.nonce


def test_a_request_to_join_is_valid_once(hub, identity):
    signed = wish(identity, hub)
    _, token, new = hub.access.enrol(signed)
    assert new
    with pytest.raises(NotAuthorizedError, match="has been used"):
        hub.access.enrol(signed)
    assert hub.access.caller(token).entity  # the replay has not ended it
    assert not hub.access.enrol(wish(identity, hub))[2]


def test_a_request_to_join_is_valid_for_minutes(hub, identity):
    signed = wish(identity, hub)
    hub.late = timedelta(minutes=6)
    with pytest.raises(NotAuthorizedError, match="has expired"):
        hub.access.enrol(signed)
    assert hub.access.enrol(wish(identity, hub, at=hub.now() - timedelta(days=1)))  # whatever its own clock shows


def test_a_request_to_join_another_hub_is_refused(site, hub, identity):
    other = site("other")
    with pytest.raises(CorruptKnowledgeError, match="is signed for hub"):
        hub.access.enrol(wish(identity, other))
    with pytest.raises(NotAuthorizedError, match="not of this hub"):
        hub.access.enrol(wish(identity, other, hub=hub.store.hub_id()))
    for part in ("hub", "nonce"):
        with pytest.raises(RequestRejectedError, match="names both"):
            hub.access.enrol(wish(identity, hub, **{part: None}))
    assert not hub.store.members().items


def test_an_older_entity_joins_and_each_of_its_requests_is_valid_once(hub, identity):
    signed = old_wish(identity, hub)
    member, token, _ = hub.access.enrol(signed)
    with pytest.raises(NotAuthorizedError, match="has been used"):
        hub.access.enrol(signed)
    assert hub.access.caller(token).entity == member.id
    assert hub.access.enrol(old_wish(identity, hub))[0].id == member.id


def test_an_entity_that_has_named_the_hub_does_so_ever_after(hub, identity):
    hub.access.enrol(old_wish(identity, hub))
    kept = old_wish(identity, hub)
    hub.access.enrol(wish(identity, hub))  # upgraded
    with pytest.raises(NotAuthorizedError, match="use such a version"):
        hub.access.enrol(kept)


@pytest.fixture
def member(hub, identity):
    return hub.access.enrol(wish(identity, hub))[0]


@pytest.fixture
def draft(draft_of, member):
    return lambda sequence, **changes: draft_of(member.id, (3, 4), sequence=sequence, **changes)


def test_a_record_for_another_hub_is_refused(site, hub, identity, draft):
    elsewhere = sign(draft(1), identity, hub=site("other").store.hub_id())
    with pytest.raises(CorruptKnowledgeError, match="The record is signed for hub"):
        hub.store.publish(elsewhere, key="one")
    with pytest.raises(CorruptKnowledgeError, match="is not signed"):
        hub.store.publish(replace(elsewhere, hub=hub.store.hub_id()), key="one")
    with pytest.raises(CorruptKnowledgeError, match="is not signed"):
        hub.store.publish(replace(elsewhere, hub=None), key="one")
    record = hub.store.publish(sign(draft(1), identity, hub=hub.store.hub_id()), key="one")
    assert hub.store.knowledge(record.id).hub == hub.store.hub_id()


def test_records_without_a_hub_are_taken_until_the_first_with_one(hub, identity, draft, member):
    hub.store.publish(signed_by(identity, draft(1)), key="waited since an older version")
    hub.store.publish(sign(draft(2), identity, hub=hub.store.hub_id()), key="two")
    with pytest.raises(RequestRejectedError, match="for no hub in particular"):
        hub.store.publish(signed_by(identity, draft(3)), key="three")
    key = Key(public_key=Identity.generate().public_key, since=3)
    with pytest.raises(RequestRejectedError, match="for no hub in particular"):
        hub.store.change_key(member.id, replace(key, signature=identity.sign(succession_bytes(member.id, key))))


def test_a_key_for_another_hub_is_refused(site, hub, identity, member):
    key = Key(public_key=Identity.generate().public_key, since=1, hub=site("other").store.hub_id())
    with pytest.raises(CorruptKnowledgeError, match="The new key is signed for hub"):
        hub.store.change_key(member.id, replace(key, signature=identity.sign(succession_bytes(member.id, key))))
    key = replace(key, hub=hub.store.hub_id())
    signed = replace(key, signature=identity.sign(succession_bytes(member.id, key)))
    assert hub.store.change_key(member.id, signed).keys[-1] == signed
    assert hub.store.member(member.id).keys[-1] == signed


@pytest.mark.parametrize("sequence", [SEQUENCE_STEP + 1, 2**62, MAX_SEQUENCE + 1, 2**63 - 1])
def test_a_sequence_grows_by_bounded_steps(hub, identity, draft, member, sequence):
    far = sign(draft(sequence), identity, hub=hub.store.hub_id())
    with pytest.raises(RequestRejectedError, match="above 0, the last one"):
        hub.store.publish(far, key="far")
    key = Key(public_key=Identity.generate().public_key, since=sequence, hub=hub.store.hub_id())
    with pytest.raises(RequestRejectedError, match="above 0, the last one"):
        hub.store.change_key(member.id, replace(key, signature=identity.sign(succession_bytes(member.id, key))))
    assert hub.store.publish(sign(draft(SEQUENCE_STEP), identity, hub=hub.store.hub_id()), key="near").sequence
    with pytest.raises(ConflictError, match="send each signed record once"):
        hub.store.publish(sign(draft(1), identity, hub=hub.store.hub_id()), key="late")


def test_two_registries_on_one_database_are_one_hub(stores):
    here, there = stores
    assert here.hub_id() == there.hub_id()
    nonce = here.hub.challenge(ChallengeRequest(nonce=OURS), here._clock()).nonce
    there.hub.check_nonce(nonce, there._clock())


def test_an_entity_joins_a_bounded_number_of_times_until_the_first_is_forgotten(hub, monkeypatch):
    monkeypatch.setattr(used, "MAX_ENROLMENTS", 3)
    ann, bob = Identity.generate(), Identity.generate()
    for _ in range(3):
        hub.access.enrol(wish(ann, hub, name="ann"))
    _, token, _ = hub.access.enrol(wish(bob, hub, name="bob"))
    with pytest.raises(ServiceUnavailableError, match="joined 3 times within 25 minutes") as caught:
        hub.access.enrol(wish(ann, hub, name="ann"))
    assert 0 < caught.value.retry_after <= 25 * 60
    hub.late = timedelta(seconds=caught.value.retry_after)
    hub.access.enrol(wish(ann, hub, name="ann"))
    assert hub.access.caller(token).entity is not None
    hub.late = timedelta(days=1)
    hub.access.enrol(wish(ann, hub, name="ann"))
    with hub.store.database.read_snapshot() as connection:
        assert connection.scalar(select(func.count()).select_from(used_enrolments)) == 1
