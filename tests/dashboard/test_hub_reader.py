"""The dashboard's cache of records is bounded in bytes, and what it sends is signed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.dashboard import hub_reader
from kuber.dashboard.hub_reader import HubReader
from kuber.domain.knowledge import TensorSpec
from kuber.domain.record_memory import record_memory
from kuber.errors import CorruptKnowledgeError, KnowledgeNotFoundError
from kuber.signing import Identity
from kuber.wire.signing_payloads import record_bytes
from tests.services.records import ARCHITECTURE
from tests.services.registry.test_record_pages import record_of


def test_the_cache_counts_bytes(monkeypatch):
    large = record_of(
        replace(ARCHITECTURE, manifest={f"{n}": TensorSpec(dtype="F32", shape=(1,)) for n in range(99)})
    )
    monkeypatch.setattr(hub_reader, "CACHE_BYTES", 3 * record_memory(large) + 1)
    asked = []
    registry = SimpleNamespace(knowledge=lambda id: (asked.append(id), replace(large, id=id))[1])
    reader = HubReader(registry, vault=None)
    for id in "abcdabcd":
        assert reader.knowledge(id).id == id
    assert asked == list("abcdabcd")  # four do not fit
    reader.knowledge("d")
    assert len(asked) == 8
    reader.knowledge("d", fresh=True)
    assert len(asked) == 9
    assert reader._memory == sum(memory for _, memory in reader._records.values()) <= hub_reader.CACHE_BYTES


def test_a_file_is_sent_only_with_the_signature_of_its_publisher(samples, clock, ids):
    vault, identity = MemoryVault(), Identity.generate()
    registry = MemoryRegistry(vault=vault, clock=clock, ids=ids)
    member = registry.register("publisher", public_key=identity.public_key)
    draft = replace(samples.draft(member.id, vault.put(samples.weights())), sequence=1)
    record = registry.publish(replace(draft, signature=identity.sign(record_bytes(draft))), key="one")
    reader = HubReader(registry, vault)
    assert reader.file(record.id, "weights") == (
        vault.get(record.artifacts["weights"].digest),
        f"{record.id}.safetensors",
    )
    assert reader.signature(record).state == "valid"
    with pytest.raises(KnowledgeNotFoundError, match="no file of the kind 'pickle'"):
        reader.file(record.id, "pickle")
    strange = HubReader(registry, vault, pinned_keys={member.id: "0" * 64})
    with pytest.raises(CorruptKnowledgeError, match="other keys of entity 'publisher' than before"):
        strange.file(record.id, "weights")
    assert strange.signature(record).state == "wrong"
    for change in ({"signature": None}, {"signature": "0" * 128}, {"round": 9}):
        changed = replace(record, **change)
        lying = SimpleNamespace(knowledge=lambda id: changed, member=registry.member, hub_id=registry.hub_id)  # noqa: B023
        with pytest.raises(CorruptKnowledgeError, match="is not signed"):
            HubReader(lying, vault).file(record.id, "weights")
        assert HubReader(lying, vault).signature(changed).state == "wrong"
