"""When other entities are expected to publish again."""

from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from kuber.entity.clock import Clock
from kuber.entity.hub.paces import Paces

from ...domain.samples import knowledge

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Now:
    """The seconds since BEGIN on the hub's clock; the entity's clock shows others."""

    def __init__(self):
        self.seconds = 0.0
        self.paces = Paces(Clock(now=lambda: self.seconds - 1000.0))

    def sees(self, entity, round, at):
        """Return a record that was published at this second, once it is seen."""
        record = knowledge(f"{entity}{round}", 50, entity=entity, round=round, published_at=second(at))
        self.paces.saw([record])
        return record

    def publishes(self, at):
        """Let the entity publish at this second."""
        self.seconds = at
        self.paces.published(second(at))


def second(number):
    return BEGIN + timedelta(seconds=number)


def test_an_entity_is_due_as_long_after_its_last_record_as_that_came_after_the_one_before():
    now = Now()
    now.publishes(40)
    now.sees("a", 1, 10)
    record = now.sees("a", 2, 30)
    assert now.paces.due([record]) == {record.id: pytest.approx(10)}
    now.seconds = 54
    assert now.paces.due([record]) == {record.id: 0.0}, "a little late"
    now.seconds = 56
    assert now.paces.due([record]) == {record.id: inf}, "later than a quarter of its interval"


def test_rounds_in_between_that_were_not_seen_count():
    now = Now()
    now.publishes(40)
    now.sees("a", 1, 0)
    record = now.sees("a", 4, 30)
    assert now.paces.due([record]) == {record.id: pytest.approx(0, abs=1e-6)}
    assert now.paces.due([now.sees("a", 4, 30)]) == now.paces.due([record]), "seen again it is no other"


def test_nothing_is_known_of_an_entity_with_one_record_or_before_an_own_publication():
    now = Now()
    first = now.sees("a", 1, 10)
    second = now.sees("a", 2, 30)
    assert now.paces.due([second]) == {}
    now.publishes(40)
    assert now.paces.due([now.sees("b", 1, 10)]) == {}
    assert list(now.paces.due([first, second])) == [first.id, second.id]


def test_an_entity_that_began_anew_has_no_pace_yet():
    now = Now()
    now.publishes(40)
    now.sees("a", 7, 10)
    assert now.paces.due([now.sees("a", 1, 30)]) == {}
