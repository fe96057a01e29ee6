"""Files of a record: named by the id that was asked for, in the folder that was asked for, and signed."""

import json
from dataclasses import replace

import pytest

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.client.record_files import check_kinds, check_origin, write_files
from kuber.client.registry import HttpRegistry
from kuber.client.short_ids import record_id
from kuber.domain.member import Key
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, SettingsError
from kuber.signing import Identity
from kuber.wire.registry import KnowledgeBody, MemberBody
from kuber.wire.signing_payloads import record_bytes


@pytest.fixture
def vault():
    return MemoryVault()


@pytest.fixture
def registry(vault, clock, ids):
    return MemoryRegistry(vault=vault, clock=clock, ids=ids)


@pytest.fixture
def identity():
    return Identity.generate()


@pytest.fixture
def record(registry, vault, samples, identity):
    member = registry.register("publisher", public_key=identity.public_key)
    draft = replace(samples.draft(member.id, vault.put(samples.weights())), sequence=1)
    return registry.publish(replace(draft, signature=identity.sign(record_bytes(draft))), key="one")


def test_files_are_named_by_the_id(record, vault, tmp_path):
    written = list(write_files(record, vault, tmp_path / "new"))
    assert [path.name for path in written] == [f"{record.id}.safetensors", f"{record.id}.json"]
    assert written[0].read_bytes() == vault.get(record.artifacts["weights"].digest)
    assert KnowledgeBody.read(written[1].read_bytes()).value() == record
    assert list(write_files(record, vault, tmp_path / "new")) == written


def test_a_link_is_replaced_and_not_followed(record, vault, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (f"{record.id}.json", f"{record.id}.safetensors", f"{record.id}.tmp"):
        (tmp_path / name).symlink_to(precious)
    written = list(write_files(record, vault, tmp_path))
    assert precious.read_text() == "mine"
    assert not any(path.is_symlink() for path in written)


def test_what_cannot_be_written_is_one_sentence(record, vault, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made: File exists"):
        list(write_files(record, vault, tmp_path / "file"))
    (tmp_path / f"{record.id}.safetensors").mkdir()
    with pytest.raises(SettingsError, match="cannot be written: Is a directory"):
        list(write_files(record, vault, tmp_path))


@pytest.mark.parametrize("kind", ["sh", "json", "tmp"])
def test_an_unknown_kind_is_refused_before_anything_is_written(record, vault, tmp_path, kind):
    odd = replace(record, artifacts={**record.artifacts, kind: vault.put(b"#!/bin/sh")})
    with pytest.raises(IncompatibleKnowledgeError, match=f"kind '{kind}'"):
        check_kinds(odd)
    with pytest.raises(IncompatibleKnowledgeError):
        list(write_files(odd, vault, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_signature_is_checked_with_the_pinned_key_or_the_registrys(registry, record, identity, caplog):
    check_origin(record, registry, {record.entity: identity.public_key})
    assert not caplog.records
    check_origin(record, registry, {})
    assert identity.public_key in caplog.text
    assert "which only the registry says is that of entity 'publisher'" in caplog.text
    with pytest.raises(CorruptKnowledgeError, match="other keys of entity 'publisher' than before"):
        check_origin(record, registry, {record.entity: "0" * 64})
    for change in ({"signature": None}, {"signature": "0" * 128}, {"round": 9}):
        with pytest.raises(CorruptKnowledgeError, match="is not signed"):
            check_origin(replace(record, **change), registry, {})
    with pytest.raises(CorruptKnowledgeError, match="does not know the publisher"):
        check_origin(replace(record, entity="nobody"), registry, {})


@pytest.mark.parametrize("id", ["id-999", "../up", "a/b", "..", "", "a" * 201, "a\n"])
def test_an_answer_about_another_id_is_refused(record, script, reply, identity, id):
    bodies = (
        KnowledgeBody.of(record).model_copy(update={"id": id}),
        MemberBody(id="x", name="publisher", registered_at=record.published_at).model_copy(update={"id": id}),
    )
    service = script(*(reply(body=body.model_dump_json().encode()) for body in bodies))
    with HttpRegistry(service.url, patience=0) as registry:
        with pytest.raises(CorruptKnowledgeError, match=r"do not trust it|malformed"):
            registry.knowledge(record.id)
        with pytest.raises(CorruptKnowledgeError, match=r"do not trust it|malformed"):
            registry.member(record.entity)


def test_a_member_of_another_name_lends_no_key(registry, record):
    """A registry that answers with another member's keys makes no record theirs."""
    forger = Identity.generate()
    other = registry.register("forger", public_key=forger.public_key)

    class Lying:
        def hub_id(self):
            return None

        def member(self, id):
            return replace(other, keys=(Key(public_key=forger.public_key),))

    forged = replace(record, signature=forger.sign(record_bytes(replace(record, signature=None))))
    with pytest.raises(CorruptKnowledgeError, match="is not signed"):
        check_origin(forged, Lying(), {})


@pytest.mark.parametrize("answer", ["0" * 32, "../../up", "ab cd"])
def test_an_answer_to_a_short_id_that_does_not_match_is_refused(script, reply, answer):
    service = script(reply(body=json.dumps({"knowledge": [answer]}).encode()))
    with (
        HttpRegistry(service.url, patience=0) as registry,
        pytest.raises(CorruptKnowledgeError, match="do not trust"),
    ):
        record_id(registry, "abc")
