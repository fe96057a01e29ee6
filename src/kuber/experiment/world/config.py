"""What a world is described by: a preset's name or a TOML file, drawn into the conditions of each entity."""

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
from kuber.settings import Settings
from kuber.wire import sentence

SPELLS = 4.0  # how many times as long as its rounds take at best an entity comes and goes or crashes

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(rounds?|s)")
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Duration(BaseModel):
    """A length of virtual time: a number of seconds, "20 s", or "1.5 rounds" of an entity of usual size and speed."""

    model_config = _STRICT
    amount: float = Field(ge=0)
    unit: Literal["s", "rounds"] = "s"

    def seconds(self, round: float) -> float:
        """How long it is where a round takes so many seconds."""
        return self.amount * (round if self.unit == "rounds" else 1.0)


def _duration(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    if not isinstance(value, str):
        return {"amount": value}
    found = _DURATION.fullmatch(value.strip())
    if found is None:
        raise ValueError(f'a time is a number of seconds, "20 s" or "1.5 rounds", not {value!r}')
    return {"amount": float(found[1]), "unit": "s" if found[2] == "s" else "rounds"}


def _longer_than_nothing(duration: Duration) -> Duration:
    if duration.amount == 0:
        raise ValueError("this time is longer than nothing")
    return duration


Time = Annotated[Duration, BeforeValidator(_duration)]
Stretch = Annotated[Time, AfterValidator(_longer_than_nothing)]
Between = Annotated[
    tuple[Time, Time], BeforeValidator(lambda value: value if isinstance(value, list) else [value] * 2)
]


class RandomOutages(BaseModel):
    """Comes again and again: after `every` on average, for `lasting` on average, both drawn exponentially."""

    model_config = _STRICT
    every: Stretch
    lasting: Stretch


class Group(BaseModel):
    """Entities that live under the same conditions: those named, or a share of all that no group names."""

    model_config = _STRICT
    entities: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    share: float | None = Field(None, gt=0, le=1)
    speed: float = Field(1.0, gt=0, le=1e6)  # times as quick as they would be
    samples: float = Field(1.0, gt=0, le=1)  # of their private data that they have
    latency: Time = Duration(amount=0)
    up: float | None = Field(None, gt=0)  # bytes a second
    down: float | None = Field(None, gt=0)
    joins: Between = (Duration(amount=0),) * 2  # then, or at a time drawn from between the two
    leaves: Time | None = None
    away: tuple[tuple[Time, Time], ...] = ()
    churn: RandomOutages | None = None  # of being away
    crashes: RandomOutages | None = None
    cut: tuple[tuple[Time, Time], ...] = ()
    poison: Poison | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Group":
        if (self.entities is None) == (self.share is None):
            raise ValueError("a group names its entities or a share of all, one of both")
        return self


class HubOutages(BaseModel):
    """What all entities share."""

    model_config = _STRICT
    bandwidth: float | None = Field(None, gt=0)  # bytes a second
    patience: Time = Duration(amount=0.25, unit="rounds")  # of a call, while the hub cannot be reached


class WorldFile(BaseModel):
    """A described world. Its numbers are drawn by `draw`."""

    model_config = _STRICT
    hub: HubOutages = HubOutages(bandwidth=None)
    groups: Mapping[str, Group] = Field(default_factory=dict)

    def share_of(self, group: str) -> float:
        """Of their private data that the entities of a group have."""
        return self.groups[group].samples if group in self.groups else 1.0

    @model_validator(mode="after")
    def _named(self) -> "WorldFile":
        if USUAL in self.groups:
            raise ValueError(f"{USUAL} is the group of all that no other group names; give yours another name")
        return self


# Each is one difficulty, with everything else as usual, so that what it does can be told.
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


def read_world(named: str | None) -> WorldFile:
    """The preset of this name, or what the file at this path says; without one, everything is as usual.

    SettingsError when it is neither, or impossible.
    """
    if named is None:
        return WorldFile()
    if named in PRESETS:
        return WorldFile.model_validate(PRESETS[named])
    path = Path(named).expanduser()
    if path.suffix != ".toml":
        raise SettingsError(
            f"There is no world {named!r}; choose from {', '.join(PRESETS)}, or name a file that ends with .toml."
        )
    try:
        return WorldFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The world {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The world {path} is not TOML: {error}.") from None
    except ValidationError as error:
        raise SettingsError(f"The world {path} is not possible: {sentence(error)}") from None


def check_real(settings: Settings) -> None:
    """SettingsError when a world is named for what happens in the real one."""
    if settings.world is not None:
        raise SettingsError("A world is for `kuber simulate` and `kuber compare`; here time is real: name none.")


def memberships(world: WorldFile, count: int, seed: int) -> list[str]:
    """The name of each entity's group.

    SettingsError when a group names an entity that another has or that is not there, or there are too few for all.
    """
    names: list[str | None] = [None] * count
    for name, group in world.groups.items():
        for index in group.entities or ():
            if index >= count:
                raise SettingsError(f"The group {name!r} names entity {index}, and there are {count}, from 0.")
            if names[index] is not None:
                raise SettingsError(f"Entity {index} is in the groups {names[index]!r} and {name!r}; name it once.")
            names[index] = name
    left = [index for index in np.random.default_rng([seed, 2]).permutation(count) if names[index] is None]
    for name, group in world.groups.items():
        if group.share is not None:
            size = max(1, round(group.share * count))
            if size > len(left):
                raise SettingsError(
                    f"The group {name!r} is to have {size} of {count} entities, and {len(left)} are left for it."
                )
            for index in left[:size]:
                names[index] = name
            del left[:size]
    return [name or USUAL for name in names]


def draw(
    world: WorldFile, groups: Sequence[str], *, speeds: Sequence[float], round: float, rounds: int, seed: int
) -> World:
    """The conditions of each entity, of the group named for it. The same seed draws the same world.

    `speeds` are those of a plain world, in samples a second; `round` is how many seconds a usual round takes.
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
        raise SettingsError(f"The group {name!r} joins between two times, of which the second is before the first.")
    if group.leaves is not None and group.leaves.seconds(round) <= last:
        raise SettingsError(f"The group {name!r} leaves when it may not have joined yet; let it leave later.")
    joins = float(random.uniform(first, last))
    horizon = joins + SPELLS * rounds * round / min(1.0, group.speed)
    absences = [Absence(span.start, span.end) for span in _spans(name, group.away, round)]
    if group.churn is not None:
        absences += _spells(group.churn, joins, horizon, round, random, crash=False)
    if group.crashes is not None:
        absences += _spells(group.crashes, joins, horizon, round, random, crash=True)
    if group.leaves is not None:
        absences.append(Absence(group.leaves.seconds(round), inf))
    return Conditions(
        speed=speed * group.speed,
        group=name,
        link=Link(latency=group.latency.seconds(round), up=group.up or inf, down=group.down or inf),
        joins=joins,
        absences=_apart(absences),
        cuts=tuple(_spans(name, group.cut, round)),
        poison=group.poison,
    )


def _spells(
    spells: RandomOutages, start: float, end: float, round: float, random: np.random.Generator, *, crash: bool
) -> Iterator[Absence]:
    every, lasting = spells.every.seconds(round), spells.lasting.seconds(round)
    time = start
    while True:
        time += float(random.exponential(every))
        if time >= end:
            return
        length = float(random.exponential(lasting))
        yield Absence(time, time + length, crash)
        time += length


def _spans(name: str, given: Sequence[tuple[Duration, Duration]], round: float) -> list[Interval]:
    spans = [Interval(first.seconds(round), last.seconds(round)) for first, last in given]
    for span, after in pairwise([*spans, Interval(inf)]):
        if not span.start < span.end <= after.start:
            raise SettingsError(
                f"Each stretch of time of the group {name!r} ends later than it begins, and before the next."
            )
    return spans


def _apart(absences: list[Absence]) -> tuple[Absence, ...]:
    """In order, and none in another: who crashes while away stays away until both are over."""
    apart: list[Absence] = []
    for one in sorted(absences, key=lambda one: (one.start, one.end)):
        if apart and one.start <= apart[-1].end:
            last = apart[-1]
            apart[-1] = Absence(last.start, max(last.end, one.end), last.crash and one.crash)
        else:
            apart.append(one)
    return tuple(apart)
