"""Rows, summaries and confidence intervals of comparisons."""

import json
from dataclasses import asdict, replace

import pytest

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.experiment.comparison.statistics import absent_recalls, difference, flat, result_row, spread, summaries
from kuber.experiment.metrics import Cost, RoundMetrics
from kuber.views.comparison import ResultRow
from kuber.views.delivery import DeliveryView
from kuber.views.result import parsed

HELD_OUT = Digest.of(b"held out")


def entry(entity: int, round: int, *correct: int, trained: int = 0, forward: int = 0) -> RoundMetrics:
    return RoundMetrics(
        entity=entity,
        round=round,
        time=0.0,
        cost=Cost(samples_trained=trained, samples_forward=forward, bytes_up=5, bytes_down=2, seconds=1.0),
        evaluation=Evaluation(test_set=HELD_OUT, correct=correct, total=(10,) * len(correct)),
        own_accuracy=correct[0] / 10,
    )


def delivery(before: float, after: float, *, kept: bool = True) -> DeliveryView:
    return DeliveryView(
        round=1, student="0", publishers=(), teachers=(), method="distil", before=before, after=after, kept=kept
    )


def make_row(strategy: str, seed: int, *accuracies: int) -> ResultRow:
    """Return a row of entities with these numbers of correct answers out of ten."""
    metrics = [entry(index, 1, correct, 0) for index, correct in enumerate(accuracies)]
    return result_row(strategy, seed, metrics, [], [(9, 1)] * len(accuracies))


def test_a_class_under_one_per_cent_of_the_samples_is_absent():
    assert absent_recalls([0.1, 0.2, 0.3], [990, 10, 0]) == [0.3]  # 10 of 1,000 is the limit
    assert absent_recalls([0.1, 0.2, 0.3], [991, 9, 0]) == [0.2, 0.3]


def test_a_row_describes_the_last_round_of_all_entities():
    metrics = [
        entry(0, 1, 10, 0, trained=100),
        entry(1, 1, 0, 2, trained=100),
        entry(0, 2, 10, 4, trained=200, forward=30),
        entry(1, 2, 6, 2, trained=200),
    ]
    deliveries = [delivery(0.5, 0.4), delivery(0.5, 0.6), delivery(0.5, 0.4, kept=False)]
    found = result_row("vanilla", 7, metrics, deliveries, [(10, 0), (5, 5)])
    assert (found.strategy, found.seed, found.rounds) == ("vanilla", 7, 2)
    assert found.mean_accuracy == pytest.approx((0.7 + 0.4) / 2)
    assert found.worst_accuracy == pytest.approx(0.4)
    assert found.own_accuracy == pytest.approx((1.0 + 0.6) / 2)
    assert found.own_accuracies == (1.0, 0.6)
    assert found.absent_accuracy == pytest.approx(0.4)
    assert (found.samples_trained, found.samples_forward, found.compute) == (400, 30, pytest.approx(410))
    assert (found.bytes_up, found.bytes_down, found.wall_seconds) == (10, 4, 2.0)
    assert (found.deliveries, found.deliveries_hurt) == (3, 1)
    assert [point.round for point in found.curve] == [1, 2]
    assert found.curve[0].accuracy == pytest.approx((0.5 + 0.1) / 2)


def test_a_row_is_read_as_written():
    found = make_row("local", 0, 3, 5)
    assert parsed(ResultRow, json.dumps(asdict(found)), what="a row") == found


def test_a_flat_row_has_one_value_per_column():
    row = make_row("local", 0, 3)
    assert all(not isinstance(value, (list, tuple, dict)) for value in flat(row).values())
    counted = flat(replace(row, deployed=("best", None, "best", "last")))
    assert [counted[f"deployed_{choice}"] for choice in ("last", "best", "average")] == [1, 2, 0]
    assert flat(replace(row, deployed=()))["deployed_last"] is None  # a row of an earlier version


def test_the_interval_is_that_of_students_t():
    # Three differences 1, 2, 3: mean 2, sd 1, t(2) 4.303.
    found = difference([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))


def test_a_single_seed_has_no_spread_and_no_interval():
    assert spread([0.4]).sd is None
    assert (difference([0.1]).low, difference([0.1]).high) == (None, None)


def test_differences_are_paired_by_seed():
    rows = [
        make_row("local", 0, 2, 2),
        make_row("local", 1, 8, 8),
        make_row("better", 1, 9, 9),
        make_row("better", 0, 3, 3),
    ]
    better = next(summary for summary in summaries(rows) if summary.strategy == "better")
    assert better.mean_difference is not None
    assert better.mean_difference.mean == pytest.approx(0.05)  # half of one in ten: the second class is never correct
    assert better.mean_difference.low == pytest.approx(0.05)  # equal for both seeds
    assert better.own_difference is not None
    assert better.own_difference.mean == pytest.approx(0.1)


def test_an_entity_is_hurt_if_it_ends_lower_than_with_local():
    rows = [make_row("local", 0, 5, 5, 5), make_row("other", 0, 4, 5, 6)]
    other = summaries(rows)[1]
    assert (other.entities_hurt, other.entities_hurt_own, other.entities) == (1, 1, 3)


def test_own_accuracies_are_summarised_only_if_every_row_has_them():
    rows = [make_row("local", 0, 5), make_row("other", 0, 4)]
    older = replace(rows[1], own_accuracy=None, own_accuracies=())
    local, other = summaries([rows[0], older])
    assert local.own_accuracy is not None
    assert (other.own_accuracy, other.own_difference, other.entities_hurt_own) == (None, None, None)


def test_entities_without_a_completed_round_are_not_paired():
    def row_of(strategy: str, correct: dict[int, int]) -> ResultRow:
        metrics = [entry(index, 1, count, 0) for index, count in correct.items()]
        return result_row(strategy, 0, metrics, [], [(9, 1)] * 3)

    alone, together = row_of("local", {0: 5, 2: 5}), row_of("kuber", {1: 1, 2: 4})
    assert alone.accuracies == (0.25, None, 0.25)
    (_, found) = summaries([alone, together])
    assert (found.entities, found.entities_hurt) == (2, 1)
