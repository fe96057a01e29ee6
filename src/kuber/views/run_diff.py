"""Runs side by side: the settings in which they differ, and how accurate they became."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from kuber.views.comparison import ComparisonResult
from kuber.views.result import RunResult, mean_by_round
from kuber.views.run_index import StoredRun

_OF_EACH = ("strategy", "seed")  # settings that a comparison takes from its plan instead


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDiff:
    """The settings of several runs; a setting that was not given counts with its default."""

    common: Mapping[str, Any]
    differing: Mapping[str, tuple[Any, ...]]  # name -> its value in each run; None where a run has no such setting


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """How accurate a run was, or one method of a comparison."""

    run: str  # name of its folder
    method: str
    means: tuple[float, ...]  # held-out accuracy at the end of each round, mean over entities and seeds; 0 to 1


def diff_runs(runs: Sequence[StoredRun]) -> RunDiff:
    """What these runs were told, in the order of the settings."""
    told = [_told(run) for run in runs]
    names = list(dict.fromkeys(name for settings in told for name in settings))
    values = {name: tuple(settings.get(name) for settings in told) for name in names}
    common = {name: found[0] for name, found in values.items() if all(one == found[0] for one in found)}
    return RunDiff(common=common, differing={name: values[name] for name in names if name not in common})


def curves(runs: Sequence[StoredRun]) -> list[Curve]:
    """One curve of each run that is complete, and one of each method of a comparison.

    A longer `local` is left out: its first rounds are those of the plain one.
    """
    found: list[Curve] = []
    for run in runs:
        if isinstance(run.outcome, RunResult):
            means = tuple(mean_by_round(run.outcome.entities))
            found.append(Curve(run=run.name, method=run.outcome.strategy, means=means))
        elif run.outcome is not None:
            found += _curves(run.name, run.outcome)
    return found


def _curves(name: str, outcome: ComparisonResult) -> list[Curve]:
    found = []
    for method in dict.fromkeys(row.strategy for row in outcome.rows if "@" not in row.strategy):
        rounds = zip(*(row.curve for row in outcome.rows if row.strategy == method), strict=False)
        means = tuple(fmean(point.accuracy for point in points) for points in rounds)
        found.append(Curve(run=name, method=method, means=means))
    return found


def _told(run: StoredRun) -> dict[str, Any]:
    if run.plan is None:
        return run.told
    plan = {"strategies": list(run.plan.strategies), "seeds": list(run.plan.seeds)}
    return {name: value for name, value in run.told.items() if name not in _OF_EACH} | plan
