"""Lines of the audit log, and the time that they begin at."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from kuber.errors import SettingsError
from kuber.views.formatting import printable

if TYPE_CHECKING:
    from kuber.domain.auth import AuditEntry

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d{1,6})([smhdw])")


def audit_line(entry: "AuditEntry", names: Mapping[str, str]) -> str:
    """Return an entry as a line: time, actor, action, subject, with names of entities instead of their ids."""
    actor, subject = (printable(names.get(id, id)) for id in (entry.actor, entry.subject))
    return f"{entry.time:%Y-%m-%dT%H:%M:%SZ} {actor} {printable(entry.act)} {subject}"


def json_line(entry: "AuditEntry", names: Mapping[str, str]) -> str:
    """Return an entry as one line of JSON, in ASCII: with ids, names where there are any, and details."""
    fields = {
        "time": f"{entry.time:%Y-%m-%dT%H:%M:%SZ}",
        "actor": entry.actor,
        "actor_name": names.get(entry.actor),
        "action": entry.act,
        "subject": entry.subject,
        "subject_name": names.get(entry.subject),
        "detail": dict(entry.detail),
    }
    return json.dumps(fields)


def time_of(text: str, *, now: datetime) -> datetime:
    """Return the time that a text names: an age such as 12h, or a date or time, in UTC unless it says otherwise.

    Raises SettingsError for any other text.
    """
    try:
        if age := _AGE.fullmatch(text):
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{text[:100]!r} is no time; give one like 2026-01-31, 2026-01-31T12:00, or an age like 90m, 12h or 3d."
        ) from None
