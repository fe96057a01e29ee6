"""The simulated world: speed, link, presence and soundness of each entity."""

from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

Poison = Literal["labels", "claims", "noise"]
Reason = Literal["crashed", "away", "left"]

USUAL = "usual"  # the group of entities outside every other group


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of virtual time in seconds; the end is exclusive."""

    start: float
    end: float = inf

    def __contains__(self, time: object) -> bool:
        return isinstance(time, float) and self.start <= time < self.end


@dataclass(frozen=True, slots=True)
class Absence(Interval):
    """An interval in which an entity is absent; its work since the last checkpoint is lost."""

    crash: bool = False

    @property
    def reason(self) -> Reason:
        """The reason for the absence, as logged."""
        return "crashed" if self.crash else "left" if self.end == inf else "away"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The connection of an entity to the hub."""

    latency: float = 0.0  # seconds for each call
    up: float = inf  # bytes per second for weights sent
    down: float = inf  # bytes per second for weights pulled


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The conditions of one entity. Times are virtual seconds."""

    speed: float  # samples trained per second
    group: str = USUAL
    link: Link = Link()
    joins: float = 0.0
    absences: tuple[Absence, ...] = ()  # disjoint, in order
    cuts: tuple[Interval, ...] = ()  # times at which it is present but cannot reach the hub
    poison: Poison | None = None  # its attack, if it is unsound

    @property
    def always_available(self) -> bool:
        """Whether it is always present, connected to the hub, and sound."""
        return self.joins == 0.0 and not self.absences and not self.cuts and self.poison is None


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The conditions of each entity, and those of the hub."""

    entities: tuple[Conditions, ...]
    bandwidth: float = inf  # of the hub in bytes per second, shared by all transfers
    patience: float = 10.0  # seconds that a call waits for an unreachable hub; the default of `kuber entity`

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their first entity."""
        return tuple(dict.fromkeys(conditions.group for conditions in self.entities))

    def change(self, index: int, **changes: Any) -> "World":
        """Return this world with other conditions for one entity."""
        entities = list(self.entities)
        entities[index] = replace(entities[index], **changes)
        return replace(self, entities=tuple(entities))
