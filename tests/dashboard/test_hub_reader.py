"""The dashboard's cache of records is bounded in bytes."""

from dataclasses import replace
from types import SimpleNamespace

from kuber.dashboard import hub_reader
from kuber.dashboard.hub_reader import HubReader
from kuber.domain.knowledge import TensorSpec
from kuber.domain.record_memory import record_memory
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
