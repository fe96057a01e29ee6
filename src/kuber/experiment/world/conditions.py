"""The world of a simulation: how quick each entity is, how it reaches the hub, when it is there, if it is sound."""

from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

Poison = Literal["labels", "claims", "noise"]
Reason = Literal["crashed", "away", "left"]

USUAL = "usual"  # the group of those that no other names


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of virtual time, in seconds; its end is no part of it."""

    start: float
    end: float = inf

    def __contains__(self, time: object) -> bool:
        return isinstance(time, float) and self.start <= time < self.end


@dataclass(frozen=True, slots=True)
class Absence(Interval):
    """When an entity is not there; what it computed since its last checkpoint is lost."""

    crash: bool = False

    @property
    def reason(self) -> Reason:
        """Why it is not there, in a word."""
        return "crashed" if self.crash else "left" if self.end == inf else "away"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The way of an entity to the hub."""

    latency: float = 0.0  # seconds of each call
    up: float = inf  # bytes a second, of weights that it sends
    down: float = inf  # ... and that it pulls


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Under which one entity lives. Times are virtual seconds."""

    speed: float  # samples that it trains in a second
    group: str = USUAL
    link: Link = Link()
    joins: float = 0.0
    absences: tuple[Absence, ...] = ()  # apart, in order
    cuts: tuple[Interval, ...] = ()  # when it is there and the hub cannot be reached
    poison: Poison | None = None  # how what it publishes is unsound

    @property
    def always_available(self) -> bool:
        """Whether it is there, in reach of the hub and sound from first to last."""
        return self.joins == 0.0 and not self.absences and not self.cuts and self.poison is None


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The conditions of each entity, and the hub that all share."""

    entities: tuple[Conditions, ...]
    bandwidth: float = inf  # of the hub, bytes a second, for all that is sent and pulled together
    patience: float = 10.0  # seconds that a call waits for a hub that is away: those of `kuber entity`

    @property
    def groups(self) -> tuple[str, ...]:
        """Their names, in the order of their first entity."""
        return tuple(dict.fromkeys(one.group for one in self.entities))

    def change(self, index: int, **changes: Any) -> "World":
        """The same world in which one entity lives under other conditions."""
        entities = list(self.entities)
        entities[index] = replace(entities[index], **changes)
        return replace(self, entities=tuple(entities))
