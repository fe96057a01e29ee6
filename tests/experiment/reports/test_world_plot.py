"""The plot of a simulated world: its means, and that it is drawn."""

from dataclasses import replace

import pytest

from kuber.experiment.reports.world_plot import _mean_over_time, world_plot


def test_the_mean_is_over_entities_that_have_completed_a_round(sample):
    first, second, *_ = sample[0].entities
    early = replace(first, accuracies=(0.2, 0.6), ends=(1.0, 4.0))
    late = replace(second, accuracies=(0.4, 0.5), ends=(2.0, 3.0))
    times, means = _mean_over_time([early, late])
    assert times == [1.0, 2.0, 3.0, 4.0]
    assert means == pytest.approx([0.2, 0.3, 0.35, 0.55])


def test_groups_are_drawn_the_same_way_twice(sample):
    result, _ = sample

    def drawn(*groups):
        entities = tuple(replace(entity, group=group) for entity, group in zip(result.entities, groups, strict=True))
        return world_plot(replace(result, entities=entities))

    once = drawn("usual", "slow", "usual", "slow")
    assert once.startswith(b"\x89PNG")
    assert once == drawn("usual", "slow", "usual", "slow")
    assert once != drawn("usual", "usual", "slow", "slow")
