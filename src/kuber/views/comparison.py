"""The result of a comparison, stored in `result.json`, and its tables. docs/comparison.md describes every figure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from kuber.domain.deployment import Choice
from kuber.views.deployed_models import NAMES, deployed_counts
from kuber.views.formatting import points, size
from kuber.views.result import finite, parsed

FLOOR = "local"  # every method is compared with it
PUBLIC = frozenset({"fedmd"})  # methods that need a public data set
_QUALITY = ("method", "general", "worst", "own", "absent")
_VERSUS = ("method", "general (95% CI)", "own (95% CI)", "hurt")
_DEPLOYED = ("method", *NAMES.values())
_COST = ("method", "compute", "sent", "received", "seconds", "deliveries hurt")


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A method at the end of one round, over all entities."""

    round: int
    accuracy: float  # mean over entities, on the held-out test set or a part of it
    compute: float  # samples trained plus a third of the samples run forward only, of all entities
    bytes: int  # up and down, of all entities
    own_accuracy: float | None = None  # mean over entities; older results lack it


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One method on one seed, after its last round. Accuracies on the held-out test set, 0 to 1.

    General accuracies are on the mixture of all entities, own ones on each entity's own mixture of classes.
    """

    strategy: str
    seed: int
    rounds: int
    mean_accuracy: float  # general
    worst_accuracy: float  # general
    absent_accuracy: float | None  # mean recall of the classes an entity lacks; None if no entity lacks a class
    samples_trained: int
    samples_forward: int
    compute: float
    bytes_up: int
    bytes_down: int
    wall_seconds: float  # of compute, on one core
    deliveries: int
    deliveries_hurt: int  # kept although accuracy on the common test set fell
    accuracies: tuple[float | None, ...]  # general, of each entity; None if it completed no round
    curve: tuple[Point, ...]
    deployed: tuple[Choice | None, ...] = ()  # which model of each entity; older rows lack it
    own_accuracy: float | None = None  # mean; older results lack it
    own_accuracies: tuple[float | None, ...] = ()  # of each entity
    private_accuracy: float | None = None  # mean of the private networks alone, general; None where there is none
    private_accuracies: tuple[float | None, ...] = ()  # of each entity


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    sd: float | None  # None for a single seed


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The difference to `local`, paired by seed: its mean and 95 % confidence interval (Student's t)."""

    mean: float
    low: float | None  # None for a single seed
    high: float | None


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One method over all seeds."""

    strategy: str
    seeds: int
    mean_accuracy: Spread
    worst_accuracy: Spread
    absent_accuracy: Spread | None
    compute: Spread
    bytes_up: Spread
    bytes_down: Spread
    wall_seconds: Spread
    mean_difference: Difference | None  # of mean_accuracy; None for `local` itself
    worst_difference: Difference | None
    entities: int  # over all seeds
    entities_hurt: int  # with a lower final accuracy than the same entity with `local`
    deliveries: int
    deliveries_hurt: int
    own_accuracy: Spread | None = None  # older results lack it
    own_difference: Difference | None = None
    entities_hurt_own: int | None = None  # with a lower own accuracy than the same entity with `local`


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One table; the first cell of a row names the method."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonPlan:
    """The methods and seeds of a comparison."""

    strategies: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonResult:
    """A complete comparison."""

    settings: Mapping[str, Any]  # JSON values common to all methods and seeds
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: int
    rows: tuple[ResultRow, ...]
    summary: tuple[Summary, ...]

    def to_json(self) -> str:
        """Return one JSON object: settings, rows, summary."""
        content = {
            "settings": {**self.settings, "strategies": self.strategies, "seeds": self.seeds},
            "rows": [asdict(row) for row in self.rows],
            "summary": [asdict(summary) for summary in self.summary],
        }
        return json.dumps(content, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the output of `to_json`; ignore fields of later versions. Raises ValueError if it is not valid."""
        what = "the result of a comparison"
        found, plan = parsed(_Stored, text, what=what), parsed(_Planned, text, what=what).settings
        if not any(summary.strategy == FLOOR and summary.compute.mean > 0 for summary in found.summary):
            raise ValueError(f"This is not {what}: it has no summary of {FLOOR}.")
        settings = {name: value for name, value in found.settings.items() if name not in ("strategies", "seeds")}
        return cls(
            settings=settings,
            strategies=plan.strategies,
            seeds=plan.seeds,
            rounds=plan.num_rounds,
            rows=found.rows,
            summary=found.summary,
        )

    @property
    def sections(self) -> list[Section]:
        """Tables of quality, difference, deployed models and cost; methods that use public data have their own."""
        seeds = max(summary.seeds for summary in self.summary)
        after = f"after {self.rounds} round{'' if self.rounds == 1 else 's'}, {seeds} seed{'' if seeds == 1 else 's'}"
        base = next(summary for summary in self.summary if summary.strategy == FLOOR).compute.mean
        found = []
        for kind, public in (("", False), (" with public data", True)):
            group = [summary for summary in self.summary if (summary.strategy in PUBLIC) is public]
            if group:
                quality, cost = f"Held-out accuracy{kind} {after}: %, ±sd", f"Cost{kind}, mean over seeds"
                found.append(Section(title=quality, header=_QUALITY, rows=tuple(map(_quality, group))))
                others = [summary for summary in group if summary.mean_difference is not None]
                if others:
                    versus = f"Difference to {FLOOR}{kind} in points; hurt: entities below it, general/own"
                    found.append(Section(title=versus, header=_VERSUS, rows=tuple(map(_versus, others))))
                models = f"Deployed models{kind}, of all entities and seeds"
                found += self._deployed(group, title=models)
                found.append(Section(title=cost, header=_COST, rows=tuple(_cost(summary, base) for summary in group)))
        return found

    def _deployed(self, group: Sequence[Summary], *, title: str) -> list[Section]:
        """Return the table of deployed models; none when no row says which they are."""
        cells = []
        for summary in group:
            rows = [row for row in self.rows if row.strategy == summary.strategy]
            counts = deployed_counts(choice for row in rows for choice in row.deployed)
            cells.append((summary.strategy, *("-" if counts is None else str(counts[choice]) for choice in NAMES)))
        known = any(set(figures) != {"-"} for _, *figures in cells)
        return [Section(title=title, header=_DEPLOYED, rows=tuple(cells))] if known else []


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    settings: dict[str, Any]
    rows: tuple[ResultRow, ...]
    summary: tuple[Summary, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan(ComparisonPlan):
    num_rounds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Planned:
    settings: _Plan


def _quality(summary: Summary) -> tuple[str, ...]:
    return (
        summary.strategy,
        _spread(summary.mean_accuracy),
        _spread(summary.worst_accuracy),
        _spread(summary.own_accuracy),
        _spread(summary.absent_accuracy),
    )


def _versus(summary: Summary) -> tuple[str, ...]:
    own_hurt = summary.entities_hurt_own
    return (
        summary.strategy,
        _difference(summary.mean_difference),
        _difference(summary.own_difference),
        f"{summary.entities_hurt}/{'-' if own_hurt is None else own_hurt} of {summary.entities}",
    )


def _cost(summary: Summary, base: float) -> tuple[str, ...]:
    return (
        summary.strategy,
        f"{summary.compute.mean / base:.2f} x",
        size(round(summary.bytes_up.mean)),
        size(round(summary.bytes_down.mean)),
        f"{summary.wall_seconds.mean:,.0f}",
        f"{summary.deliveries_hurt} of {summary.deliveries}" if summary.deliveries else "",
    )


def _spread(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found.mean:.1f}" + ("" if found.sd is None else f"±{100 * found.sd:.1f}")


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return points(found.mean)
    return f"{points(found.mean)} ({points(found.low)}, {points(found.high)})"
