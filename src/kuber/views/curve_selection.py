"""The lines of many entities in one picture: named where they are few, else a crowd with its best, worst and mean."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import TypeVar

from kuber.views.formatting import natural
from kuber.views.hub import HubEntity, HubView

NAMED = 10  # with more entities only some are drawn out
POINTS = 60  # of one line of a crowd
MOMENTS = 120  # at which the mean of a crowd is drawn

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSelection:
    """Who is drawn out of all that have told an accuracy, and why: entity id -> what it is called in the picture."""

    highlighted: dict[str, str]
    few: bool  # whether that is everybody


def select_curves(view: HubView, chosen: str | None = None) -> CurveSelection:
    """Everybody where they are few; else the best, the worst and the chosen entity."""
    told = sorted((one for one in view.entities.values() if one.curve), key=lambda one: natural(one.name))
    if len(told) <= NAMED:
        return CurveSelection(highlighted={one.id: one.name for one in told}, few=True)
    best = max(told, key=_accuracy)
    worst = min(told, key=_accuracy)
    names = {best.id: f"best: {best.name}", worst.id: f"worst: {worst.name}"}
    if chosen is not None and chosen in view.entities:
        names.setdefault(chosen, view.entities[chosen].name)
    return CurveSelection(highlighted=names, few=False)


def mean_curve(entities: Sequence[HubEntity], *, most: int = MOMENTS) -> list[tuple[datetime, float]]:
    """The mean over those that have told an accuracy by then, at up to `most` moments at which somebody told one.

    Of an entity POINTS of its accuracies count at most: what a picture can show.
    """
    told = [thinned(one.curve, POINTS) for one in entities]
    curves = [([time for time, _, _ in one], [value for _, _, value in one]) for one in told]
    moments = thinned(sorted({time for times, _ in curves for time in times}), most)
    points = []
    for moment in moments:
        latest = [values[place - 1] for times, values in curves if (place := bisect_right(times, moment))]
        points.append((moment, fmean(latest)))
    return points


def thinned(points: Sequence[T], most: int) -> list[T]:
    """At most so many of the points, evenly spread; the first and the last stay."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]


def _accuracy(one: HubEntity) -> float:
    return one.accuracy or 0.0
