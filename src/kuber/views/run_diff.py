"""Runs side by side: the settings in which they differ, and their accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from kuber.views.comparison import ComparisonResult
from kuber.views.result import RunResult, mean_by_round
from kuber.views.run_index import StoredRun

_REPLACED_BY_PLAN = ("strategy", "seed")  # a comparison has several; its plan lists them


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDiff:
    """The settings of several runs, defaults included."""

    common: Mapping[str, Any]
    differing: Mapping[str, tuple[Any, ...]]  # name -> its value in each run; None where a run has no such setting


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Accuracy over the rounds of a run, or of one method of a comparison."""

    run: str  # name of its folder
    method: str
    means: tuple[float, ...]  # held-out accuracy at the end of each round, mean over entities and seeds; 0 to 1
    own: tuple[float, ...] = ()  # on the entities' own mixtures of classes, likewise; empty in older results


def diff_runs(runs: Sequence[StoredRun]) -> RunDiff:
    """Return the settings that all runs share and those in which they differ, in the order of the settings."""
    settings = [_settings_of(run) for run in runs]
    names = list(dict.fromkeys(name for values in settings for name in values))
    columns = {name: tuple(values.get(name) for values in settings) for name in names}
    common = {name: column[0] for name, column in columns.items() if all(value == column[0] for value in column)}
    return RunDiff(common=common, differing={name: columns[name] for name in names if name not in common})


def curves(runs: Sequence[StoredRun]) -> list[Curve]:
    """Return one curve for each complete run, and one for each method of a complete comparison.

    A longer `local` is left out: its first rounds are those of the plain one.
    """
    found: list[Curve] = []
    for run in runs:
        if isinstance(run.outcome, RunResult):
            means = tuple(mean_by_round(run.outcome.entities))
            own = run.outcome.of_own_mixtures
            of_own = () if own is None else tuple(mean_by_round(own.entities))
            found.append(Curve(run=run.name, method=run.outcome.strategy, means=means, own=of_own))
        elif run.outcome is not None:
            found += _curves_of_methods(run.name, run.outcome)
    return found


def _curves_of_methods(run: str, outcome: ComparisonResult) -> list[Curve]:
    found = []
    for method in dict.fromkeys(row.strategy for row in outcome.rows if "@" not in row.strategy):
        rounds = list(zip(*(row.curve for row in outcome.rows if row.strategy == method), strict=False))
        means = tuple(fmean(point.accuracy for point in points) for points in rounds)
        own = [[point.own_accuracy for point in points if point.own_accuracy is not None] for points in rounds]
        is_known = all(len(values) == len(points) for values, points in zip(own, rounds, strict=True))
        found.append(Curve(run=run, method=method, means=means, own=tuple(map(fmean, own)) if is_known else ()))
    return found


def _settings_of(run: StoredRun) -> dict[str, Any]:
    if run.plan is None:
        return run.all_settings
    plan = {"strategies": list(run.plan.strategies), "seeds": list(run.plan.seeds)}
    return {name: value for name, value in run.all_settings.items() if name not in _REPLACED_BY_PLAN} | plan
