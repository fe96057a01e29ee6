"""Suspicions are the same however large the records and attestations are."""

import pytest

from kuber.services.registry import knowledge_reader, suspicions


@pytest.mark.parametrize("page", [8 << 20, 100, 15_000])
def test_records_are_compared_in_parts(registry_store, draft, monkeypatch, page):
    monkeypatch.setattr(suspicions, "MAX_PAGE_BYTES", page)
    monkeypatch.setattr(knowledge_reader, "MAX_PAGE_BYTES", max(page, 10_000))
    other = registry_store.register("other").id
    records = [registry_store.publish(draft((9, 9), fill=fill), key=f"{fill}") for fill in range(5)]
    for record in records[1:4]:
        lower = draft((1, 1)).evaluation
        registry_store.attest(record.id, entity=other, evaluation=lower)
    found = registry_store.suspicions()
    assert [each.knowledge for each in found] == [record.id for record in records[3:0:-1]]
    assert {each.refused_by for each in found} == {("other",)}
