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
State = Literal["discoverable", "pending", "verified", "unverifiable", "quarantined", "withdrawn", "all"]
_NUMBER = re.compile(r"\d+")
MIN_ID_CHARACTERS = 4  # of a search term that is compared with ids
COLUMNS: tuple[Column, ...] = get_args(Column)
STATES: tuple[State, ...] = get_args(State)


@dataclass(kw_only=True, slots=True)
class HubRecord:
    """One record, as described by the events of the registry."""

    id: str
    publisher: str  # entity id
    name: str  # of the publisher
    time: datetime
    round: int
    claimed: float | None  # accuracy, 0 to 1
    task: str
    architecture: str
    bytes: int
    test_set: str = ""  # digest of the publisher's own validation data; empty with a common test set
    found: float | None = None  # accuracy measured by the hub's verifier, 0 to 1
    standing: Standing | None = None  # None until the verifier or the operator has judged it
    withdrawn: bool = False
    judgements: int = 0  # by the verifier or the operator, withdrawal included

    @property
    def is_discoverable(self) -> bool:
        """Whether discovery returns it: neither withdrawn nor quarantined."""
        return not self.withdrawn and self.standing is not Standing.QUARANTINED

    @property
    def state(self) -> str:
        """Its state in one word: "withdrawn", "pending", or its standing."""
        return "withdrawn" if self.withdrawn else "pending" if self.standing is None else self.standing.value


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFilter:
    """Selection, order and page of the records in a table."""

    text: str = ""  # each word must be part of a name, or the beginning or end of the id
    task: str | None = None
    publisher: str | None = None  # entity id
    state: State = "discoverable"
    sort: Column = "time"
    descending: bool = True
    page: int = 1
    size: int = 25  # rows of a page


def filter_records(records: Iterable[HubRecord], criteria: RecordFilter) -> RowPage[HubRecord]:
    """Return one page of the records that match. Records without a value in the sorted column come last."""
    words = criteria.text.casefold().split()
    matching = [
        record
        for record in records
        if (criteria.task is None or record.task == criteria.task)
        and (criteria.publisher is None or record.publisher == criteria.publisher)
        and _has_state(record, criteria.state)
        and (not words or _contains(record, words))
    ]
    value = _VALUES[criteria.sort]
    known = [record for record in matching if value(record) is not None]
    unknown = [record for record in matching if value(record) is None]
    ordered = sorted(known, key=value, reverse=criteria.descending) + unknown
    return paginate(ordered, page=criteria.page, size=criteria.size)


_VALUES: dict[Column, Callable[[HubRecord], Any]] = {
    "time": lambda record: record.time,
    "name": lambda record: natural(record.name),
    "task": lambda record: natural(record.task),
    "architecture": lambda record: natural(record.architecture),
    "round": lambda record: record.round,
    "claimed": lambda record: record.claimed,
    "found": lambda record: record.found,
    "bytes": lambda record: record.bytes,
}


def _has_state(record: HubRecord, state: State) -> bool:
    return state == "all" or (record.is_discoverable if state == "discoverable" else record.state == state)


def _contains(record: HubRecord, words: list[str]) -> bool:
    """Whether each word is part of a name (digits: a whole number in it), or the beginning or end of the id."""
    text = f"{record.name} {record.task} {record.architecture}".casefold()
    numbers = set(_NUMBER.findall(text))
    return all(
        (word in numbers if word.isdecimal() else word in text)
        or (len(word) >= MIN_ID_CHARACTERS and (record.id.startswith(word) or record.id.endswith(word)))
        for word in words
    )
