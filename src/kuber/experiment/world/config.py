"""Description of a world, a preset or a TOML file, and the conditions drawn from it for each entity."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kuber.errors import SettingsError
from kuber.experiment.world.conditions import USUAL, Absence, Conditions, Interval, Link, Poison, World
from kuber.settings import Settings, expand_home
from kuber.wire.base import sentence

OUTAGE_HORIZON = 4.0  # random outages are drawn for this multiple of the shortest duration of an entity's rounds

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(rounds?|s)")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Duration(_Strict):
    """A duration of virtual time: a number of seconds, "20 s", or "1.5 rounds" of a usual entity."""

    amount: float = Field(ge=0)
    unit: Literal["s", "rounds"] = "s"

    def seconds(self, round: float) -> float:
        """Return the duration in seconds, where a round takes `round` seconds."""
        return self.amount * (round if self.unit == "rounds" else 1.0)


def _duration(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    if not isinstance(value, str):
        return {"amount": value}
    found = _DURATION.fullmatch(value.strip())
    if found is None:
        raise ValueError(f'a time must be a number of seconds, "20 s" or "1.5 rounds", not {value!r}')
    return {"amount": float(found[1]), "unit": "s" if found[2] == "s" else "rounds"}


def _positive(duration: Duration) -> Duration:
    if duration.amount == 0:
        raise ValueError("this time must be greater than 0")
    return duration


Time = Annotated[Duration, BeforeValidator(_duration)]
PositiveTime = Annotated[Time, AfterValidator(_positive)]
TimeRange = Annotated[
    tuple[Time, Time], BeforeValidator(lambda value: value if isinstance(value, list) else [value] * 2)
]


class RandomOutages(_Strict):
    """Repeated outages: after `every` on average, for `lasting` on average, both drawn exponentially."""

    every: PositiveTime
    lasting: PositiveTime


class Group(_Strict):
    """Entities with the same conditions: listed by number, or a share of all entities, from those not listed."""

    entities: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    share: float | None = Field(None, gt=0, le=1)
    speed: float = Field(1.0, gt=0, le=1e6)  # factor on their usual speed
    samples: float = Field(1.0, gt=0, le=1)  # fraction of their private data that they have
    latency: Time = Duration(amount=0)
    up: float | None = Field(None, gt=0)  # bytes per second
    down: float | None = Field(None, gt=0)
    joins: TimeRange = (Duration(amount=0),) * 2  # a time, or an interval to draw one from
    leaves: Time | None = None
    away: tuple[tuple[Time, Time], ...] = ()
    churn: RandomOutages | None = None  # absences
    crashes: RandomOutages | None = None
    cut: tuple[tuple[Time, Time], ...] = ()
    poison: Poison | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Group":
        if (self.entities is None) == (self.share is None):
            raise ValueError("a group needs either entities or a share")
        return self


class HubConfig(_Strict):
    """The conditions of the hub."""

    bandwidth: float | None = Field(None, gt=0)  # bytes per second
    patience: Time = Duration(amount=0.25, unit="rounds")  # of a call while the hub is unreachable


class WorldFile(_Strict):
    """The description of a world; `draw` draws its random numbers."""

    hub: HubConfig = HubConfig(bandwidth=None)
    groups: Mapping[str, Group] = Field(default_factory=dict)

    def share_of(self, group: str) -> float:
        """Return the fraction of their private data that the entities of a group have."""
        return self.groups[group].samples if group in self.groups else 1.0

    @model_validator(mode="after")
    def _named(self) -> "WorldFile":
        if USUAL in self.groups:
            raise ValueError(f"{USUAL} is the group of entities outside every other group; use another name")
        return self


# Each preset has one difficulty, and everything else as usual, so that its effect can be measured.
PRESETS: dict[str, dict[str, Any]] = {
    "stragglers": {"groups": {"slow": {"share": 0.25, "speed": 0.1}}},
    "churn": {"groups": {"coming and going": {"share": 1, "churn": {"every": "3 rounds", "lasting": "1 round"}}}},
    "crashes": {"groups": {"crashing": {"share": 1, "crashes": {"every": "2 rounds", "lasting": "0.1 rounds"}}}},
    "late-joiners": {"groups": {"late": {"share": 0.5, "joins": ["2 rounds", "4 rounds"]}}},
    "flash-crowd": {
        "hub": {"bandwidth": 2_000_000},
        "groups": {"crowd": {"share": 0.75, "joins": "2 rounds", "latency": 0.05}},
    },
    "partitioned": {"groups": {"cut off": {"share": 0.5, "cut": [["2 rounds", "5 rounds"]]}}},
    "poisoned": {
        "groups": {
            "turned labels": {"share": 0.125, "poison": "labels"},
            "false claims": {"share": 0.125, "poison": "claims"},
        }
    },
}


def read_world(name: str | None) -> WorldFile:
    """Return the preset of this name, or the content of the TOML file at this path; without either, a usual world.

    Raises SettingsError if it is neither, or invalid.
    """
    if name is None:
        return WorldFile()
    if name in PRESETS:
        return WorldFile.model_validate(PRESETS[name])
    path = expand_home(Path(name))
    if path.suffix != ".toml":
        raise SettingsError(f"There is no world {name!r}; choose from {', '.join(PRESETS)}, or give a .toml file.")
    try:
        return WorldFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The world {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The world {path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        raise SettingsError(f"The world {path} is invalid: {sentence(error)}") from None


def check_real(settings: Settings) -> None:
    """Raise SettingsError if a world is given for a real run."""
    if settings.world is not None:
        raise SettingsError("--world works only with `kuber simulate` and `kuber compare`; remove it.")


def memberships(world: WorldFile, count: int, seed: int) -> list[str]:
    """Return the name of each entity's group.

    Raises SettingsError if a group lists an unknown entity or one of another group, or if its share is too large.
    """
    names: list[str | None] = [None] * count
    for name, group in world.groups.items():
        for index in group.entities or ():
            if index >= count:
                raise SettingsError(f"The group {name!r} lists entity {index}, but the last entity is {count - 1}.")
            if names[index] is not None:
                raise SettingsError(f"Entity {index} is in the groups {names[index]!r} and {name!r}; list it once.")
            names[index] = name
    left = [index for index in np.random.default_rng([seed, 2]).permutation(count) if names[index] is None]
    for name, group in world.groups.items():
        if group.share is not None:
            size = max(1, round(group.share * count))
            if size > len(left):
                raise SettingsError(
                    f"The share of the group {name!r} is {size} of {count} entities, but only {len(left)} are left."
                )
            for index in left[:size]:
                names[index] = name
            del left[:size]
    return [name or USUAL for name in names]


def draw(
    world: WorldFile, groups: Sequence[str], *, speeds: Sequence[float], round: float, rounds: int, seed: int
) -> World:
    """Draw the conditions of each entity according to its group. Equal seeds draw equal worlds.

    `speeds` are the usual speeds in samples per second; `round` is the duration of a usual round in seconds.
    """
    conditions = []
    for index, (name, speed) in enumerate(zip(groups, speeds, strict=True)):
        if name == USUAL:
            conditions.append(Conditions(speed=speed))
        else:
            random = np.random.default_rng([seed, 3, index])
            conditions.append(_conditions(name, world.groups[name], speed, round, rounds, random))
    patience = world.hub.patience.seconds(round)
    return World(entities=tuple(conditions), bandwidth=world.hub.bandwidth or inf, patience=patience)


def _conditions(
    name: str, group: Group, speed: float, round: float, rounds: int, random: np.random.Generator
) -> Conditions:
    first, last = (time.seconds(round) for time in group.joins)
    if last < first:
        raise SettingsError(f"In the group {name!r}, the end of `joins` is before its start.")
    if group.leaves is not None and group.leaves.seconds(round) <= last:
        raise SettingsError(f"The group {name!r} may leave before it joins; set `leaves` later than `joins`.")
    joins = float(random.uniform(first, last))
    horizon = joins + OUTAGE_HORIZON * rounds * round / min(1.0, group.speed)
    absences = [Absence(away.start, away.end) for away in _intervals(name, group.away, round)]
    if group.churn is not None:
        absences += _random_outages(group.churn, joins, horizon, round, random, crash=False)
    if group.crashes is not None:
        absences += _random_outages(group.crashes, joins, horizon, round, random, crash=True)
    if group.leaves is not None:
        absences.append(Absence(group.leaves.seconds(round), inf))
    return Conditions(
        speed=speed * group.speed,
        group=name,
        link=Link(latency=group.latency.seconds(round), up=group.up or inf, down=group.down or inf),
        joins=joins,
        absences=_disjoint(absences),
        cuts=tuple(_intervals(name, group.cut, round)),
        poison=group.poison,
    )


def _random_outages(
    outages: RandomOutages, start: float, end: float, round: float, random: np.random.Generator, *, crash: bool
) -> Iterator[Absence]:
    every, lasting = outages.every.seconds(round), outages.lasting.seconds(round)
    time = start
    while True:
        time += float(random.exponential(every))
        if time >= end:
            return
        length = float(random.exponential(lasting))
        yield Absence(time, time + length, crash)
        time += length


def _intervals(name: str, times: Sequence[tuple[Duration, Duration]], round: float) -> list[Interval]:
    intervals = [Interval(start.seconds(round), end.seconds(round)) for start, end in times]
    for interval, following in pairwise([*intervals, Interval(inf)]):
        if not interval.start < interval.end <= following.start:
            raise SettingsError(
                f"In the group {name!r}, each interval must end after it starts and not after the next starts."
            )
    return intervals


def _disjoint(absences: list[Absence]) -> tuple[Absence, ...]:
    """Sort absences and merge overlapping ones: an entity that crashes while away returns after both."""
    disjoint: list[Absence] = []
    for absence in sorted(absences, key=lambda absence: (absence.start, absence.end)):
        if disjoint and absence.start <= disjoint[-1].end:
            last = disjoint[-1]
            disjoint[-1] = Absence(last.start, max(last.end, absence.end), last.crash and absence.crash)
        else:
            disjoint.append(absence)
    return tuple(disjoint)
