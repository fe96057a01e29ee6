"""The plot of deliveries: it is drawn, reproducible, and distinguishes kept deliveries from others."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from kuber.domain.event import Event
from kuber.experiment.reports.lineage_plot import lineage_plot
from kuber.views.run import RunView

Tell = Callable[..., list[Event]]


@pytest.mark.parametrize(("entities", "rounds", "strategy"), [(4, 8, "vanilla"), (1, 1, "local"), (60, 4, "vanilla")])
def test_it_is_drawn_for_any_run(tell: Tell, entities: int, rounds: int, strategy: str) -> None:
    view = RunView.of(tell(entities=entities, rounds=rounds, strategy=strategy), rounds=rounds)
    image = Image.open(io.BytesIO(lineage_plot(view)))
    assert image.format == "PNG"
    assert image.width == 1350
    assert 300 < image.height <= 2100


def test_the_same_run_gives_the_same_bytes_and_another_outcome_others(tell: Tell) -> None:
    events = tell()
    undone = [
        replace(event, detail={**event.detail, "kept": False}) if event.kind == "absorbed" else event
        for event in events
    ]
    drawn = [lineage_plot(RunView.of(log, rounds=8)) for log in (events, events, undone)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_teacher_from_elsewhere_is_left_out(tell: Tell) -> None:
    """The log of `kuber entity` has only one entity."""
    alone = [event for event in tell() if event.entity in (None, "0")]
    assert RunView.of(alone, rounds=8).deliveries
    assert lineage_plot(RunView.of(alone, rounds=8))
