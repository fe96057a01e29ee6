"""Key rotation, interrupted at every point."""

from dataclasses import replace

import pytest

from kuber.client import key_rotation
from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.key_rotation import NEXT_FILE, change_key
from kuber.client.record_signature import sign
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.errors import CorruptKnowledgeError, SettingsError
from kuber.signing import Identity, check_record
from kuber.wire.signing_payloads import record_bytes


class Interrupted(BaseException):
    pass


class Person:
    """An entity with a folder; it signs with the current key in it."""

    def __init__(self, hub, folder, name, samples):
        self.hub, self.folder, self.name, self.samples = hub, folder, name, samples

    def publish(self, sequence):
        identity = Identity.load_or_create(self.folder / KEY_FILE)
        credentials = Credentials(identity, path=self.folder / TOKEN_FILE)
        with (
            HttpRegistry(self.hub.registry, credentials=credentials) as registry,
            HttpVault(self.hub.vault, credentials=credentials) as vault,
        ):
            id = registry.register(self.name).id
            draft = self.samples.draft(id, vault.put(self.samples.weights()), sequence=sequence)
            signed = sign(draft, identity, hub=registry.hub_id())
            return registry.publish(signed, key=f"act {sequence}"), registry.member(id)

    def change(self):
        return change_key(self.folder, self.name, self.hub.registry)


@pytest.fixture
def person(hub, tmp_path, samples):
    return Person(hub, tmp_path / "identity", f"changing-{samples.token}", samples)


def test_the_old_key_signs_the_new_one(person):
    first, before = person.publish(1)
    after = person.change()
    assert [key.since for key in after.keys] == [0, 2]
    second, member = person.publish(2)
    assert member.keys == after.keys
    assert not (person.folder / NEXT_FILE).exists()
    for record in (first, second):
        check_record(member, record, record_bytes(record))
    assert before.keys == member.keys[:1]


@pytest.mark.parametrize(
    ("place", "name"), [(HttpRegistry, "register"), (HttpRegistry, "change_key"), (key_rotation.Path, "replace")]
)
@pytest.mark.parametrize("side", ["before", "after"])
def test_an_interrupted_change_is_completed_by_the_next(person, monkeypatch, place, name, side):
    person.publish(1)
    original = getattr(place, name)

    def act(self, *arguments, **named):
        if name == "replace" and self.name != NEXT_FILE:  # other files are replaced too
            return original(self, *arguments, **named)
        if side == "after":
            original(self, *arguments, **named)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(place, name, act)
        with pytest.raises(Interrupted):
            person.change()
    if (name, side) != ("replace", "after"):
        assert (person.folder / NEXT_FILE).exists()
        person.change()
    _, member = person.publish(2)
    assert len(member.keys) == 2
    assert member.keys[-1].public_key == Identity.load_or_create(person.folder / KEY_FILE).public_key


def test_without_a_key_there_is_none_to_replace(person):
    with pytest.raises(SettingsError, match="no key in"):
        person.change()
    assert not person.folder.exists()


def test_records_signed_with_the_old_key_are_refused_afterwards(person):
    person.publish(1)
    old = Identity.load_or_create(person.folder / KEY_FILE)
    person.change()
    member = person.publish(2)[1]
    draft = person.samples.draft(member.id, person.publish(3)[0].artifacts["weights"], sequence=4)
    signed = replace(draft, signature=old.sign(record_bytes(draft)))
    with pytest.raises(CorruptKnowledgeError):
        check_record(member, signed, record_bytes(signed))
