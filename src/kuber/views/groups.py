"""Results of the groups of a simulated world."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from kuber.views.result import EntityResult


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupView:
    """The results of the entities of one group. Accuracies are held out, 0 to 1."""

    name: str
    entities: int
    done: int  # entities that completed every round
    rounds: float  # completed by an entity, on average
    accuracy: float  # general, mean over entities at the end of their last round
    own: float | None  # on their own mixtures of classes, likewise; None in older results
    worst: float  # general
    end: float  # virtual second at which their last round ended


def groups_of(entities: Iterable[EntityResult], *, rounds: int) -> list[GroupView]:
    """Return the groups in the order of their first entity; none where no world was named.

    `rounds` is the number of rounds of a complete run.
    """
    members: dict[str, list[EntityResult]] = {}
    for entity in entities:
        if entity.group is not None:
            members.setdefault(entity.group, []).append(entity)
    return [
        GroupView(
            name=name,
            entities=len(group),
            done=sum(len(entity.accuracies) == rounds for entity in group),
            rounds=fmean(len(entity.accuracies) for entity in group),
            accuracy=fmean(entity.final_accuracy for entity in group),
            own=_mean([entity.own_accuracy for entity in group]),
            worst=min(entity.final_accuracy for entity in group),
            end=max(entity.ends[-1] for entity in group),
        )
        for name, group in members.items()
    ]


def _mean(values: list[float | None]) -> float | None:
    """Return the mean; None unless all values are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
