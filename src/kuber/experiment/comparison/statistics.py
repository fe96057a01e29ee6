"""The statistics of a comparison: a row for each method and seed, and a summary of each method over the seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from kuber.domain.deployment import CHOICES
from kuber.experiment.metrics import Cost, RoundMetrics
from kuber.views.comparison import FLOOR, Difference, Point, ResultRow, Spread, Summary
from kuber.views.delivery import DeliveryView
from kuber.views.deployed_models import deployed_counts

ABSENT = 0.01  # a class with a smaller share of an entity's samples counts as absent

# Student's t, 97.5th percentile, for 1 to 30 degrees of freedom; beyond, the normal distribution is close.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.960
# Fields of a row that a summary has too, as spreads.
_SPREADS = (
    "mean_accuracy",
    "worst_accuracy",
    "compute",
    "bytes_up",
    "bytes_down",
    "wall_seconds",
)


def result_row(
    strategy: str,
    seed: int,
    metrics: Sequence[RoundMetrics],
    deliveries: Sequence[DeliveryView],
    class_counts: Sequence[Sequence[int]],
) -> ResultRow:
    """Compute the row of one method and seed; `class_counts` are those of each entity's private samples."""
    last = max(entry.round for entry in metrics)
    final = list({entry.entity: entry for entry in metrics}.values())  # the last round of each
    final.sort(key=lambda entry: entry.entity)
    by_entity = {entry.entity: entry.evaluation.accuracy for entry in final}
    own = {entry.entity: entry.own_accuracy for entry in final}
    deployed = {entry.entity: entry.deployed for entry in final}
    private = {entry.entity: entry.private_accuracy for entry in final if entry.private_accuracy is not None}
    counts = [class_counts[entry.entity] for entry in final]
    recalls = [entry.evaluation.recalls for entry in final]
    absent = [value for found in map(absent_recalls, recalls, counts) for value in found]
    total = sum((entry.cost for entry in final), Cost())
    return ResultRow(
        strategy=strategy,
        seed=seed,
        rounds=last,
        mean_accuracy=fmean(by_entity.values()),
        worst_accuracy=min(by_entity.values()),
        own_accuracy=fmean(own.values()),
        absent_accuracy=fmean(absent) if absent else None,
        samples_trained=total.samples_trained,
        samples_forward=total.samples_forward,
        compute=total.compute,
        bytes_up=total.bytes_up,
        bytes_down=total.bytes_down,
        wall_seconds=total.seconds,
        deliveries=len(deliveries),
        deliveries_hurt=sum(delivery.kept and delivery.after < delivery.before for delivery in deliveries),
        accuracies=tuple(by_entity.get(entity) for entity in range(len(class_counts))),
        own_accuracies=tuple(own.get(entity) for entity in range(len(class_counts))),
        curve=tuple(_point(number, metrics) for number in range(1, last + 1)),
        deployed=tuple(deployed.get(entity) for entity in range(len(class_counts))),
        private_accuracy=fmean(private.values()) if private else None,
        private_accuracies=tuple(private.get(entity) for entity in range(len(class_counts))),
    )


def absent_recalls(recalls: Sequence[float | None], counts: Sequence[int]) -> list[float]:
    """Return the recalls of the classes that make up less than ABSENT of the samples."""
    limit = ABSENT * sum(counts)
    return [recall for recall, count in zip(recalls, counts, strict=True) if count < limit and recall is not None]


def summaries(rows: Iterable[ResultRow]) -> list[Summary]:
    """Summarise each method, in the order of their first rows. Every seed needs a row of `local`."""
    by_method: dict[str, list[ResultRow]] = {}
    for row in rows:
        by_method.setdefault(row.strategy, []).append(row)
    floor = {row.seed: row for row in by_method[FLOOR]}
    return [_summary(name, sorted(group, key=lambda row: row.seed), floor) for name, group in by_method.items()]


def _summary(name: str, rows: list[ResultRow], floor: dict[int, ResultRow]) -> Summary:
    pairs = [(row, floor[row.seed]) for row in rows]
    absent = [row.absent_accuracy for row in rows if row.absent_accuracy is not None]
    spreads: dict[str, Any] = {name: spread([getattr(row, name) for row in rows]) for name in _SPREADS}
    plain = Summary(
        strategy=name,
        seeds=len(rows),
        absent_accuracy=spread(absent) if absent else None,
        **spreads,
        mean_difference=None if name == FLOOR else _difference_of(pairs, "mean_accuracy"),
        worst_difference=None if name == FLOOR else _difference_of(pairs, "worst_accuracy"),
        entities=sum(accuracy is not None for row in rows for accuracy in row.accuracies),
        entities_hurt=sum(_hurt(ours.accuracies, base.accuracies) for ours, base in pairs),
        deliveries=sum(row.deliveries for row in rows),
        deliveries_hurt=sum(row.deliveries_hurt for row in rows),
    )
    return _with_own(plain, pairs)


def _with_own(summary: Summary, pairs: Sequence[tuple[ResultRow, ResultRow]]) -> Summary:
    """Return the summary with own accuracies; without, for rows of earlier versions, which lack them."""
    known = [(ours.own_accuracy, base.own_accuracy) for ours, base in pairs]
    values = [(ours, base) for ours, base in known if ours is not None and base is not None]
    if len(values) < len(known):
        return summary
    return replace(
        summary,
        own_accuracy=spread([ours for ours, _ in values]),
        own_difference=None if summary.strategy == FLOOR else difference([ours - base for ours, base in values]),
        entities_hurt_own=sum(_hurt(ours.own_accuracies, base.own_accuracies) for ours, base in pairs),
    )


def _hurt(accuracies: Sequence[float | None], alone: Sequence[float | None]) -> int:
    """Return how many entities have a lower accuracy than alone."""
    pairs = zip(accuracies, alone, strict=True)
    return sum(after < before for after, before in pairs if after is not None and before is not None)


def _difference_of(pairs: Sequence[tuple[ResultRow, ResultRow]], name: str) -> Difference:
    return difference([getattr(ours, name) - getattr(base, name) for ours, base in pairs])


def spread(values: Sequence[float]) -> Spread:
    return Spread(mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


def difference(values: Sequence[float]) -> Difference:
    """Return the mean of paired differences and its 95 % confidence interval."""
    mean, freedom = fmean(values), len(values) - 1
    if freedom == 0:
        return Difference(mean=mean, low=None, high=None)
    t = _T[freedom - 1] if freedom <= len(_T) else _NORMAL
    margin = t * stdev(values) / sqrt(len(values))
    return Difference(mean=mean, low=mean - margin, high=mean + margin)


def flat(row: ResultRow) -> dict[str, Any]:
    """Return the scalar fields of a row, and the number of each choice of deployed models, for a CSV file."""
    lists = ("accuracies", "own_accuracies", "private_accuracies", "curve", "deployed")
    scalars = {name: value for name, value in asdict(row).items() if name not in lists}
    counts = deployed_counts(row.deployed) or {}
    return scalars | {f"deployed_{choice}": counts.get(choice) for choice in CHOICES}


def _point(number: int, metrics: Sequence[RoundMetrics]) -> Point:
    entries = [entry for entry in metrics if entry.round == number]
    total = sum((entry.cost for entry in entries), Cost())
    return Point(
        round=number,
        accuracy=fmean(entry.evaluation.accuracy for entry in entries),
        compute=total.compute,
        bytes=total.bytes_up + total.bytes_down,
        own_accuracy=fmean(entry.own_accuracy for entry in entries),
    )
