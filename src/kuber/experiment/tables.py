"""The tables of a comparison, as text; the terminal and the report show the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from kuber.experiment.methods import PUBLIC
from kuber.experiment.tally import FLOOR, Difference, Spread, Summary
from kuber.settings import Settings
from kuber.views import points, size

_QUALITY = ("method", "mean", "worst", "personal", "absent", "vs local (95% CI)")
_COST = ("method", "compute", "sent", "received", "seconds", "entities hurt", "deliveries hurt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One table: the first cell of a row names the method."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(settings: Settings, summary: Sequence[Summary]) -> list[Section]:
    """Quality and cost of every method; those that use public data stand in tables of their own."""
    seeds = max(one.seeds for one in summary)
    of = f"after {settings.num_rounds} rounds, {seeds} seed{'' if seeds == 1 else 's'}"
    base = next(one for one in summary if one.strategy == FLOOR).compute.mean
    found = []
    for kind, public in (("", False), (" with public data", True)):
        those = [one for one in summary if (one.strategy in PUBLIC) is public]
        if those:
            quality, cost = f"Held-out accuracy{kind} {of}: %, ±sd", f"Cost{kind}, mean over seeds"
            found.append(Section(title=quality, header=_QUALITY, rows=tuple(_quality(one) for one in those)))
            found.append(Section(title=cost, header=_COST, rows=tuple(_cost(one, base) for one in those)))
    return found


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
