"""Event of a run: one line of its event log. docs/events.md describes every kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

Kind = Literal[
    "run-started",
    "run-ended",
    "joined",
    "round-started",
    "trained",
    "private-trained",
    "evaluated",
    "published",
    "queued",
    "dropped",
    "unreachable",
    "reachable",
    "failed",
    "restored",
    "rekeyed",
    "sought",
    "no-teachers",
    "pulled",
    "rejected",
    "absorbed",
    "compared",
    "round-ended",
    "stopped",
    "resumed",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to an entity, or to the run itself."""

    time: datetime  # UTC
    entity: str | None  # name; None for the run itself
    seq: int  # counts the events of the entity (or of the run) from 0, without gaps
    round: int  # the entity's, from 1; 0 before the first
    kind: Kind
    detail: Mapping[str, Any]  # JSON values; docs/events.md lists those of each kind


def utc_now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)
