"""Curves of many entities in one chart: which are highlighted, their mean, and how many points are drawn."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import TypeVar

from kuber.views.formatting import natural
from kuber.views.hub import HubEntity, HubView

MAX_NAMED = 10  # with more entities, only some are highlighted
POINTS = 60  # of a curve in the background
MEAN_POINTS = 120  # of the mean curve

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSelection:
    """The entities whose curves are highlighted: entity id -> label in the chart."""

    highlighted: dict[str, str]
    is_all: bool  # whether these are all entities with a curve


def select_curves(view: HubView, chosen: str | None = None) -> CurveSelection:
    """Select all entities with a curve if they are at most MAX_NAMED; else the best, the worst and `chosen`."""
    entities = sorted((entity for entity in view.entities.values() if entity.curve), key=lambda e: natural(e.name))
    if len(entities) <= MAX_NAMED:
        return CurveSelection(highlighted={entity.id: entity.name for entity in entities}, is_all=True)
    best = max(entities, key=_accuracy)
    worst = min(entities, key=_accuracy)
    labels = {best.id: f"best: {best.name}", worst.id: f"worst: {worst.name}"}
    if chosen is not None and chosen in view.entities:
        labels.setdefault(chosen, view.entities[chosen].name)
    return CurveSelection(highlighted=labels, is_all=False)


def mean_curve(entities: Sequence[HubEntity], *, limit: int = MEAN_POINTS) -> list[tuple[datetime, float]]:
    """Return the mean of the latest accuracies at up to `limit` times at which an entity reported one.

    Of each entity at most POINTS accuracies count, as many as a chart draws of it.
    """
    thin = [thinned(entity.curve, POINTS) for entity in entities]
    curves = [([time for time, _, _ in curve], [accuracy for _, _, accuracy in curve]) for curve in thin]
    moments = thinned(sorted({time for times, _ in curves for time in times}), limit)
    points = []
    for moment in moments:
        latest = [values[place - 1] for times, values in curves if (place := bisect_right(times, moment))]
        points.append((moment, fmean(latest)))
    return points


def thinned(points: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` of the points, evenly spread, with the first and the last."""
    if len(points) <= limit:
        return list(points)
    step = (len(points) - 1) / (limit - 1)
    return [points[round(number * step)] for number in range(limit)]


def _accuracy(entity: HubEntity) -> float:
    return entity.accuracy or 0.0
