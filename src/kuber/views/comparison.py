"""The outcome of a comparison, as `result.json` holds it, and its tables. docs/comparison.md has every figure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from kuber.views.formatting import points, size
from kuber.views.result import finite, parsed

FLOOR = "local"  # what every method is compared with
PUBLIC = frozenset({"fedmd"})  # methods that need data of the task which everybody may see
_QUALITY = ("method", "mean", "worst", "personal", "absent", "vs local (95% CI)")
_COST = ("method", "compute", "sent", "received", "seconds", "entities hurt", "deliveries hurt")


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A method at the end of one round: all entities at the end of that round of theirs."""

    round: int
    accuracy: float  # mean over entities, on the held-out test set or a part of it
    compute: float  # samples trained and a third of those only run forward, of all entities
    bytes: int  # up and down, of all entities


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One method on one seed, after its last round. Accuracies on the held-out test set, 0 to 1."""

    strategy: str
    seed: int
    rounds: int
    mean_accuracy: float
    worst_accuracy: float
    personal_accuracy: float  # on the test set reweighted to each entity's own label distribution; mean
    absent_accuracy: float | None  # mean recall of the classes an entity lacks; None where none lacks any
    samples_trained: int
    samples_forward: int
    compute: float
    bytes_up: int
    bytes_down: int
    wall_seconds: float  # of computing, on one core
    deliveries: int
    deliveries_hurt: int  # kept, though accuracy on the common test set fell
    accuracies: tuple[float | None, ...]  # of each entity; None of one that ended no round
    curve: tuple[Point, ...]


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds; no deviation of a single one."""

    mean: float
    sd: float | None


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A paired difference to `local`, seed by seed: its mean with a 95 % confidence interval (Student's t)."""

    mean: float
    low: float | None  # None of a single seed
    high: float | None


@finite
@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One method over all seeds."""

    strategy: str
    seeds: int
    mean_accuracy: Spread
    worst_accuracy: Spread
    personal_accuracy: Spread
    absent_accuracy: Spread | None
    compute: Spread
    bytes_up: Spread
    bytes_down: Spread
    wall_seconds: Spread
    mean_difference: Difference | None  # of mean_accuracy; None of `local` itself
    worst_difference: Difference | None
    entities: int  # over all seeds
    entities_hurt: int  # that end lower than the same entity did with `local`
    deliveries: int
    deliveries_hurt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One table: the first cell of a row names the method."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonPlan:
    """What a comparison compares: methods and seeds."""

    strategies: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonResult:
    """A comparison that is complete."""

    settings: Mapping[str, Any]  # JSON values, without what each method and seed has of its own
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: int
    rows: tuple[ResultRow, ...]
    summary: tuple[Summary, ...]

    def to_json(self) -> str:
        """One JSON object: settings, rows, summary."""
        told = {
            "settings": {**self.settings, "strategies": self.strategies, "seeds": self.seeds},
            "rows": [asdict(one) for one in self.rows],
            "summary": [asdict(one) for one in self.summary],
        }
        return json.dumps(told, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The comparison that `to_json` wrote; fields of later versions are left out. ValueError when it is none."""
        what = "the result of a comparison"
        found, plan = parsed(_Stored, text, what=what), parsed(_Planned, text, what=what).settings
        if not any(one.strategy == FLOOR and one.compute.mean > 0 for one in found.summary):
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
        """Quality and cost of every method; those that use public data stand in tables of their own."""
        seeds = max(one.seeds for one in self.summary)
        of = f"after {self.rounds} round{'' if self.rounds == 1 else 's'}, {seeds} seed{'' if seeds == 1 else 's'}"
        base = next(one for one in self.summary if one.strategy == FLOOR).compute.mean
        found = []
        for kind, public in (("", False), (" with public data", True)):
            those = [one for one in self.summary if (one.strategy in PUBLIC) is public]
            if those:
                quality, cost = f"Held-out accuracy{kind} {of}: %, ±sd", f"Cost{kind}, mean over seeds"
                found.append(Section(title=quality, header=_QUALITY, rows=tuple(_quality(one) for one in those)))
                found.append(Section(title=cost, header=_COST, rows=tuple(_cost(one, base) for one in those)))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    settings: dict[str, Any]
    rows: tuple[ResultRow, ...]
    summary: tuple[Summary, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    num_rounds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Planned:
    settings: _Plan


def _quality(one: Summary) -> tuple[str, ...]:
    return (
        one.strategy,
        _spread(one.mean_accuracy),
        _spread(one.worst_accuracy),
        _spread(one.personal_accuracy),
        _spread(one.absent_accuracy),
        _difference(one.mean_difference),
    )


def _cost(one: Summary, base: float) -> tuple[str, ...]:
    return (
        one.strategy,
        f"{one.compute.mean / base:.2f} x",
        size(round(one.bytes_up.mean)),
        size(round(one.bytes_down.mean)),
        f"{one.wall_seconds.mean:,.0f}",
        "" if one.mean_difference is None else f"{one.entities_hurt} of {one.entities}",
        f"{one.deliveries_hurt} of {one.deliveries}" if one.deliveries else "",
    )


def _spread(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found.mean:.1f}" + ("" if found.sd is None else f"±{100 * found.sd:.1f}")


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return points(found.mean)
    return f"{points(found.mean)} ({points(found.low)}, {points(found.high)})"
