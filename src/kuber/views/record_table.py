"""The records of a hub as a table: searched, filtered, sorted and cut into pages."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from kuber.domain.verification import Standing
from kuber.views.formatting import natural
from kuber.views.pagination import RowPage, paginate

Column = Literal["time", "name", "task", "architecture", "round", "claimed", "found", "bytes"]
Which = Literal["shelved", "pending", "verified", "unverifiable", "quarantined", "withdrawn", "all"]
_NUMBER = re.compile(r"\d+")
SHORTEST_ID = 4  # characters of an id that are searched for
COLUMNS: tuple[Column, ...] = get_args(Column)
WHICH: tuple[Which, ...] = get_args(Which)


@dataclass(kw_only=True, slots=True)
class HubRecord:
    """One record, as far as the registry's events tell of it."""

    id: str
    publisher: str  # entity id
    name: str  # of the publisher
    time: datetime
    round: int
    claimed: float | None  # accuracy, 0 to 1
    task: str
    architecture: str
    bytes: int
    found: float | None = None  # accuracy that the hub found
    standing: Standing | None = None  # None: the hub has not looked
    withdrawn: bool = False
    judged: int = 0  # times that something was found out, or decided, about it

    @property
    def found_by_others(self) -> bool:
        """Whether discovery finds it: neither withdrawn nor quarantined."""
        return not self.withdrawn and self.standing is not Standing.QUARANTINED

    @property
    def state(self) -> str:
        """One word for what became of it."""
        return "withdrawn" if self.withdrawn else "pending" if self.standing is None else self.standing.value


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFilter:
    """What a reader wants to see of the table."""

    text: str = ""  # every word of it is part of a name, or how the id begins or ends
    task: str | None = None
    publisher: str | None = None  # entity id
    which: Which = "shelved"
    sort: Column = "time"
    descending: bool = True
    page: int = 1
    size: int = 25  # rows of a page


def filter_records(records: Iterable[HubRecord], wanted: RecordFilter) -> RowPage[HubRecord]:
    """One page of the records that are wanted. Those without a value in the sorted column come last."""
    words = wanted.text.casefold().split()
    kept = [
        one
        for one in records
        if (wanted.task is None or one.task == wanted.task)
        and (wanted.publisher is None or one.publisher == wanted.publisher)
        and _is(one, wanted.which)
        and (not words or _tells(one, words))
    ]
    value = _VALUES[wanted.sort]
    told = [one for one in kept if value(one) is not None]
    ordered = sorted(told, key=value, reverse=wanted.descending) + [one for one in kept if value(one) is None]
    return paginate(ordered, page=wanted.page, size=wanted.size)


_VALUES: dict[Column, Callable[[HubRecord], Any]] = {
    "time": lambda one: one.time,
    "name": lambda one: natural(one.name),
    "task": lambda one: natural(one.task),
    "architecture": lambda one: natural(one.architecture),
    "round": lambda one: one.round,
    "claimed": lambda one: one.claimed,
    "found": lambda one: one.found,
    "bytes": lambda one: one.bytes,
}


def _is(one: HubRecord, which: Which) -> bool:
    match which:
        case "all":
            return True
        case "shelved":
            return one.found_by_others
        case _:
            return one.state == which


def _tells(one: HubRecord, words: list[str]) -> bool:
    """Whether every word is part of a name; a number a whole one, and of the id how it begins or ends."""
    text = f"{one.name} {one.task} {one.architecture}".casefold()
    numbers = set(_NUMBER.findall(text))
    return all(
        (word in numbers if word.isdecimal() else word in text)
        or (len(word) >= SHORTEST_ID and (one.id.startswith(word) or one.id.endswith(word)))
        for word in words
    )
