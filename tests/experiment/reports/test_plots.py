"""Plots are drawn, are reproducible and have a sane size; people judge what they look like."""

import io
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kuber.domain.event import Event
from kuber.experiment.reports.plots import accuracy_plot, partition_plot, spread
from kuber.views.result import RunResult
from kuber.views.run import CurveMark, RunView

Tell = Callable[..., list[Event]]
End = Callable[..., tuple[RunResult, RunView]]


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    image.load()
    return image


def colours(image: Image.Image) -> int:
    found = image.convert("RGB").getcolors(1 << 24)
    assert found is not None
    return len(found)


@pytest.mark.parametrize(
    ("entities", "rounds", "strategy"),
    [(4, 8, "vanilla"), (1, 1, "vanilla"), (30, 3, "vanilla"), (2, 3, "local"), (11, 1, "local")],
)
def test_accuracy_is_drawn_for_any_run(tell: Tell, end: End, entities: int, rounds: int, strategy: str) -> None:
    result, view = end(tell(entities=entities, rounds=rounds, strategy=strategy), rounds=rounds, strategy=strategy)
    image = opened(accuracy_plot(result, view))
    assert image.size == (1350, 780)
    assert colours(image) > 20
    assert "Software" not in image.info


def test_publications_and_deliveries_are_marked(tell: Tell, end: End) -> None:
    events = tell(entities=2)
    result, view = end(events)
    _, unmarked = end([event for event in events if event.kind not in ("published", "absorbed")])
    assert accuracy_plot(result, view) != accuracy_plot(result, unmarked)


def test_a_round_with_a_publication_and_a_delivery_shows_both(sample: tuple[RunResult, RunView]) -> None:
    result, view = sample
    first, *others = view.entities.values()
    for entity in others:
        entity.marks = []
    published = [CurveMark(round=round, accuracy=0.5, kind="published", publisher=None) for round in (1, 2)]
    delivered = CurveMark(round=2, accuracy=0.5, kind="delivery", publisher=None)

    def inked(marks: list[CurveMark]) -> int:
        first.marks = marks
        image = opened(accuracy_plot(result, view)).convert("RGB")
        return sum(count for count, colour in image.getcolors(1 << 24) or [] if colour == (0x00, 0x72, 0xB2))

    alone = inked(published) - inked(published[:1])
    assert inked([*published, delivered]) - inked([published[0], delivered]) > 0.9 * alone > 10


def test_the_same_run_gives_the_same_bytes(sample: tuple[RunResult, RunView]) -> None:
    assert accuracy_plot(*sample) == accuracy_plot(*sample)


@pytest.mark.parametrize(("entities", "classes"), [(1, 2), (4, 10), (50, 100), (3, 30)])
def test_the_partition_is_drawn_for_any_size(entities: int, classes: int) -> None:
    labels = [f"a rather long name {number}" for number in range(classes)]
    counts = {str(entity): [(entity * 7 + c) % 5 * 30 for c in range(classes)] for entity in range(entities)}
    image = opened(partition_plot(labels, counts))
    assert 300 < image.width < 2700
    assert 100 < image.height < 2700


def test_a_partition_without_samples_is_an_empty_grid() -> None:
    assert opened(partition_plot(["no", "yes"], {"0": [0, 0]})).width > 300


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([], []),
        ([1.0], [1.0]),
        ([0.0, 5.0], [0.0, 5.0]),
        ([2.0, 2.0], [1.5, 2.5]),
        ([0, 0, 0.5], [-5 / 6, 1 / 6, 7 / 6]),
    ],
)
def test_names_are_moved_apart_only_where_they_overlap(positions: list[float], expected: list[float]) -> None:
    assert spread(positions, 1.0) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=12).map(sorted))
def test_names_never_overlap_and_keep_their_order(positions: list[float]) -> None:
    found = spread(positions, 0.1)
    assert len(found) == len(positions)
    assert all(b - a > 0.1 - 1e-9 for a, b in pairwise(found))
