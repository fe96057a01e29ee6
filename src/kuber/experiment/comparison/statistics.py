"""The figures of a comparison: one row for each method and seed, and a summary over the seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from kuber.experiment.metrics import Cost, RoundMetrics
from kuber.views import FLOOR, DeliveryView, Difference, Point, ResultRow, Spread, Summary

ABSENT = 0.01  # a class with a smaller share of an entity's samples counts as absent there

# Student's t, 97.5th percentile, for 1 to 30 degrees of freedom; beyond, that of the normal distribution is close.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.960


def row(
    strategy: str,
    seed: int,
    metrics: Sequence[RoundMetrics],
    deliveries: Sequence[DeliveryView],
    class_counts: Sequence[Sequence[int]],
) -> ResultRow:
    """The figures of one method on one seed; `class_counts` of each entity's private samples."""
    last = max(entry.round for entry in metrics)
    final = list({entry.entity: entry for entry in metrics}.values())  # of who left: where it had come to
    final.sort(key=lambda entry: entry.entity)
    by_entity = {entry.entity: entry.evaluation.accuracy for entry in final}
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
        personal_accuracy=fmean(map(personal, recalls, counts)),
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
        curve=tuple(_point(number, metrics) for number in range(1, last + 1)),
    )


def personal(recalls: Sequence[float | None], counts: Sequence[int]) -> float:
    """Accuracy where the classes are as frequent as in `counts`: the recalls' mean, weighted by them."""
    told = [(recall, count) for recall, count in zip(recalls, counts, strict=True) if recall is not None]
    return sum(recall * count for recall, count in told) / sum(count for _, count in told)


def absent_recalls(recalls: Sequence[float | None], counts: Sequence[int]) -> list[float]:
    """The recalls of the classes that make up less than ABSENT of the samples."""
    few = ABSENT * sum(counts)
    return [recall for recall, count in zip(recalls, counts, strict=True) if count < few and recall is not None]


def summaries(rows: Iterable[ResultRow]) -> list[Summary]:
    """A summary of each method, in the order of their first rows. Every seed needs a row of `local`."""
    by_method: dict[str, list[ResultRow]] = {}
    for one in rows:
        by_method.setdefault(one.strategy, []).append(one)
    floor = {one.seed: one for one in by_method[FLOOR]}
    return [_summary(name, sorted(mine, key=lambda one: one.seed), floor) for name, mine in by_method.items()]


def _summary(name: str, rows: list[ResultRow], floor: dict[int, ResultRow]) -> Summary:
    pairs = [(one, floor[one.seed]) for one in rows]
    absent = [one.absent_accuracy for one in rows if one.absent_accuracy is not None]
    return Summary(
        strategy=name,
        seeds=len(rows),
        mean_accuracy=spread([one.mean_accuracy for one in rows]),
        worst_accuracy=spread([one.worst_accuracy for one in rows]),
        personal_accuracy=spread([one.personal_accuracy for one in rows]),
        absent_accuracy=spread(absent) if absent else None,
        compute=spread([one.compute for one in rows]),
        bytes_up=spread([one.bytes_up for one in rows]),
        bytes_down=spread([one.bytes_down for one in rows]),
        wall_seconds=spread([one.wall_seconds for one in rows]),
        mean_difference=None
        if name == FLOOR
        else difference([mine.mean_accuracy - base.mean_accuracy for mine, base in pairs]),
        worst_difference=None
        if name == FLOOR
        else difference([mine.worst_accuracy - base.worst_accuracy for mine, base in pairs]),
        entities=sum(accuracy is not None for one in rows for accuracy in one.accuracies),
        entities_hurt=sum(
            after < alone
            for mine, base in pairs
            for after, alone in zip(mine.accuracies, base.accuracies, strict=True)
            if after is not None and alone is not None
        ),
        deliveries=sum(one.deliveries for one in rows),
        deliveries_hurt=sum(one.deliveries_hurt for one in rows),
    )


def spread(values: Sequence[float]) -> Spread:
    return Spread(mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


def difference(values: Sequence[float]) -> Difference:
    """The mean of paired differences and its confidence interval."""
    mean, freedom = fmean(values), len(values) - 1
    if freedom == 0:
        return Difference(mean=mean, low=None, high=None)
    t = _T[freedom - 1] if freedom <= len(_T) else _NORMAL
    reach = t * stdev(values) / sqrt(len(values))
    return Difference(mean=mean, low=mean - reach, high=mean + reach)


def flat(one: ResultRow) -> dict[str, Any]:
    """A row without its entities and its curve, as a line of a table."""
    return {name: value for name, value in asdict(one).items() if name not in ("accuracies", "curve")}


def _point(number: int, metrics: Sequence[RoundMetrics]) -> Point:
    these = [entry for entry in metrics if entry.round == number]
    total = sum((entry.cost for entry in these), Cost())
    return Point(
        round=number,
        accuracy=fmean(entry.evaluation.accuracy for entry in these),
        compute=total.compute,
        bytes=total.bytes_up + total.bytes_down,
    )
