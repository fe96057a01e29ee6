"""Runs side by side: differing settings, and curves."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kuber.views.comparison import ComparisonPlan, Point
from kuber.views.run_diff import Curve, curves, diff_runs
from kuber.views.run_index import StoredRun

from .stored_results import COMPARISON, RESULT, row

PLAIN = StoredRun(
    path=Path("runs/a"),
    name="a",
    kind="run",
    started=datetime(2026, 1, 2, tzinfo=UTC),
    status="completed",
    message=None,
    settings={},
    plan=None,
    wall_seconds=1.0,
    outcome=RESULT,
)


def run_with(**settings: Any) -> StoredRun:
    return replace(PLAIN, settings=settings)


def test_settings_with_different_values_differ() -> None:
    found = diff_runs([run_with(num_rounds=8, seed=1), run_with(num_rounds=8, seed=2), run_with(num_rounds=8)])
    assert found.differing == {"seed": (1, 2, 0)}
    assert found.common["num_rounds"] == 8
    assert found.common["dataset"] == "cifar10"  # a default of all


def test_a_default_that_was_given_makes_no_difference() -> None:
    assert diff_runs([run_with(strategy="kuber"), run_with()]).differing == {}


def test_settings_of_other_versions_are_included() -> None:
    assert diff_runs([run_with(colour="blue"), run_with()]).differing == {"colour": ("blue", None)}


def test_a_comparison_has_methods_and_seeds_instead_of_one_of_each() -> None:
    plan = ComparisonPlan(strategies=("local", "kuber"), seeds=(0, 1))
    found = diff_runs([run_with(seed=5), replace(PLAIN, plan=plan)])
    assert found.differing == {
        "strategy": ("kuber", None),
        "seed": (5, None),
        "strategies": (None, ["local", "kuber"]),
        "seeds": (None, [0, 1]),
    }


def test_nothing_has_nothing_in_common() -> None:
    found = diff_runs([])
    assert (found.common, found.differing) == ({}, {})


def test_a_run_has_one_curve_and_a_comparison_one_for_each_method() -> None:
    two = [Point(round=n, accuracy=n / 10, compute=1.0, bytes=0, own_accuracy=n / 5) for n in (1, 2)]
    older = Point(round=1, accuracy=0.1, compute=1.0, bytes=0)
    rows = (
        replace(row("local", 0, 0.3), curve=(two[0], two[1])),
        replace(row("local", 1, 0.3), curve=(two[1], two[1])),
        replace(row("local@kuber", 0, 0.3), curve=(two[0], two[1])),
        replace(row("kuber", 0, 0.5), curve=(older,)),
    )
    compared = replace(PLAIN, name="b", kind="comparison", outcome=replace(COMPARISON, rows=rows))
    unfinished = replace(PLAIN, name="c", status="running", outcome=None)
    run, local, kuber = curves([PLAIN, compared, unfinished])
    assert (run.run, run.method, run.means) == ("a", "kuber", (pytest.approx(0.2), pytest.approx(0.25)))
    assert (local.run, local.method, local.means) == ("b", "local", (pytest.approx(0.15), pytest.approx(0.2)))
    assert run.own == (pytest.approx(0.7), pytest.approx(0.75))
    assert local.own == (pytest.approx(0.3), pytest.approx(0.4))
    assert kuber == Curve(run="b", method="kuber", means=(0.1,))
