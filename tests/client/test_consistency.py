"""The comparison of registry and vault with records that no page can hold."""

from datetime import UTC, datetime
from types import SimpleNamespace

from kuber.client.consistency import compare
from kuber.domain.digest import Digest
from kuber.domain.query import Page

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_blobs_of_a_record_that_is_omitted_stay_pinned() -> None:
    digest = Digest.of(b"weights")
    pins = [
        SimpleNamespace(holder=holder, digest=digest, pinned_at=datetime(2026, 1, 1, tzinfo=UTC))
        for holder in ("large", "lost")
    ]
    unpinned: list[str] = []
    vault = SimpleNamespace(
        pins=lambda **_: Page(items=tuple(pins), cursor=None),
        blobs=lambda **_: Page(items=(SimpleNamespace(digest=digest, size=7),), cursor=None),
        unpin=unpinned.append,
    )

    def discover(query):
        if query.cursor is None:
            return Page(items=(), cursor="next", omitted=("large",))
        return Page(items=(), cursor=None)

    registry = SimpleNamespace(discover=discover)
    found = compare(registry, vault, now=NOW, repair=True)
    assert unpinned == ["lost"]
    assert [fault.sentence.split(";")[0] for fault in found.faults] == [
        "The record large is too large for any page, so that no entity finds it",
        "Blobs are pinned for lost, which is not a record.",
    ]
    assert found.records == 1
