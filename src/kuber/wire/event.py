"""Events as JSON lines of an event log, and back."""

import json
from dataclasses import fields
from datetime import UTC
from typing import Any

from pydantic import ValidationError

from kuber.domain.event import Event, Kind
from kuber.wire.base import Count, Message, Time, sentence


class _EventBody(Message):
    time: Time
    entity: str | None
    seq: Count
    round: Count
    kind: Kind
    detail: dict[str, Any]


def encode_event(event: Event) -> str:
    """Return the event as one line of JSON, without the newline. Numbers and arrays of numpy and torch are.

    ValueError when its detail is not JSON.
    """
    time = event.time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    values = {field.name: getattr(event, field.name) for field in fields(Event)}
    values |= {"time": time, "detail": dict(event.detail)}
    try:
        # ASCII only: some readers take certain other characters as the end of a line.
        return json.dumps(values, separators=(",", ":"), allow_nan=False, default=_plain)
    except TypeError as error:
        raise ValueError(f"the detail of a {event.kind} event is not JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Return a number or an array of numpy or torch as JSON values. Raises TypeError for other objects."""
    if not hasattr(value, "dtype") or not hasattr(value, "tolist"):
        raise TypeError(f"a {type(value).__name__} is no JSON value")
    return value.tolist()


def decode_event(line: str) -> Event:
    """Return the event on this line, without unknown fields. ValueError when it is not one."""
    try:
        body = _EventBody.read(line)
    except ValidationError as error:
        raise ValueError(f"this line is not a KUber event: {sentence(error)}") from None
    return Event(**dict(body))
