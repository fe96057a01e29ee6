"""Budgets of processor time, in evaluations and phases."""

import math

import pytest

from kuber.learning.time_budget import GRACE_SECONDS, LEAST_PACE, PACE_FACTOR, TimeBudget


def test_an_evaluation_may_take_its_seconds_whatever_the_number_of_batches():
    budget = TimeBudget(started=100.0, seconds=30.0)
    assert budget.allowed(1, 101.0) == budget.allowed(10_000, 5000.0) == 30.0
    assert budget.left(10.0, 1, 101.0) == 20.0
    assert budget.left(31.0, 1, 101.0) < 0


def test_the_clock_ends_a_budget_too():
    budget = TimeBudget(started=100.0, seconds=30.0, wall_seconds=60.0)
    assert budget.left(1.0, 1, 150.0) == pytest.approx(10.0)
    assert budget.left(1.0, 1, 161.0) < 0


def test_a_phase_allows_a_multiple_of_the_evaluation():
    budget = TimeBudget(started=0.0, seconds=60.0, pace=0.01, share=0.95)
    assert budget.allowed(10, 1.0) == pytest.approx(GRACE_SECONDS + PACE_FACTOR * 0.1)
    assert TimeBudget(started=0.0, seconds=60.0, pace=0.0).allowed(100, 1.0) == pytest.approx(
        GRACE_SECONDS + PACE_FACTOR * LEAST_PACE * 100
    )


def test_a_slow_teacher_may_take_most_of_a_long_phase_but_not_all():
    budget = TimeBudget(started=0.0, seconds=60.0, pace=1.0, share=0.95)
    assert budget.left(59.0, 1000, 60.0) > 0
    assert budget.left(61.0, 1000, 61.5) < 0
    assert budget.left(500.0, 1000, 1000.0) > 0
    assert math.isinf(TimeBudget(started=0.0, seconds=math.inf).left(1e9, 1, 1e9))
