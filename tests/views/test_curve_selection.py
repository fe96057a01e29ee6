"""Selection of the highlighted curves, and the mean that represents the rest."""

from collections import deque
from datetime import UTC, datetime, timedelta

import pytest

from kuber.views.curve_selection import MAX_NAMED, mean_curve, select_curves, thinned
from kuber.views.hub import HubEntity, HubView

START = datetime(2026, 1, 2, tzinfo=UTC)


def entity(id: str, *reports: tuple[int, float]) -> HubEntity:
    curve = deque((START + timedelta(seconds=second), 1, accuracy) for second, accuracy in reports)
    accuracy = reports[-1][1] if reports else None
    return HubEntity(id=id, name=f"ward {id}", joined=START, seen=START, accuracy=accuracy, curve=curve)


def view(*entities: HubEntity) -> HubView:
    return HubView(entities={entity.id: entity for entity in entities})


def test_few_entities_are_all_highlighted_unless_they_have_no_curve() -> None:
    shown = select_curves(view(entity("a", (0, 0.1)), entity("b")))
    assert (shown.highlighted, shown.is_all) == ({"a": "ward a"}, True)


def test_of_many_entities_the_best_the_worst_and_the_chosen_are_highlighted() -> None:
    many = view(*(entity(str(number), (0, number / 100)) for number in range(MAX_NAMED + 1)))
    assert select_curves(many).highlighted == {str(MAX_NAMED): f"best: ward {MAX_NAMED}", "0": "worst: ward 0"}
    shown = select_curves(many, "3")
    assert (shown.highlighted["3"], shown.is_all) == ("ward 3", False)
    assert select_curves(many, "0") == select_curves(many)
    assert select_curves(many, "unknown") == select_curves(many)


def test_the_mean_is_over_entities_with_an_accuracy_by_then() -> None:
    curves = [entity("a", (0, 0.2), (20, 0.4)), entity("b", (10, 0.6)), entity("c")]
    means = [((time - START).seconds, value) for time, value in mean_curve(curves)]
    assert means == [(0, pytest.approx(0.2)), (10, pytest.approx(0.4)), (20, pytest.approx(0.5))]
    assert mean_curve([]) == []


def test_thinning_keeps_both_ends() -> None:
    assert thinned(range(1001), 5) == [0, 250, 500, 750, 1000]
    assert len(thinned(range(1000), 60)) == 60
    assert thinned([1, 2], 60) == [1, 2]
