"""Contradicted claims and copies on the overview page."""

from typing import Any

from kuber.dashboard.hub_reader import HubReader
from kuber.dashboard.pages.overview import suspicion_row
from kuber.domain.suspicion import Suspicion
from kuber.errors import RequestRejectedError


class Registry:
    """A registry with one suspicion, which counts how often it is asked."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.asked = 0
        self._failure = failure

    def suspicions(self) -> tuple[Suspicion, ...]:
        self.asked += 1
        if self._failure is not None:
            raise self._failure
        found = {"claimed": 0.9, "found": 0.1, "agreed": 0, "refused_by": ("a", "b")}
        return (Suspicion(knowledge="0123456789abcdef", entity="p", publisher="mallory", **found),)  # type: ignore[arg-type]


def reader(registry: Any) -> HubReader:
    return HubReader(registry, vault=registry)


def test_a_publisher_is_shown_with_those_who_contradict_it() -> None:
    registry = Registry()
    hub = reader(registry)
    (publisher,) = hub.suspicions()
    name, facts, newest = suspicion_row(publisher).cells
    assert facts == "1 refused by a, b (90.0% claimed, 10.0% found)"
    assert (name["text"], newest["href"]) == ("mallory", "/knowledge/0123456789abcdef")
    assert hub.suspicions() == [publisher]
    assert registry.asked == 1, "it is kept for some seconds"


def test_a_registry_that_knows_none_shows_none() -> None:
    assert reader(Registry(RequestRejectedError("Not found."))).suspicions() == []
