"""Numbers and names formatted for people, the same in terminal, report and dashboard."""

import re
from collections.abc import Sequence
from functools import lru_cache

from kuber.domain.printable_text import printable as printable
from kuber.domain.whole_numbers import read_digits

_DIGITS = re.compile(r"(\d+)")
_UNITS = ("B", "kB", "MB", "GB", "TB")
_BARS = "▁▂▃▄▅▆▇█"


@lru_cache(maxsize=10_000)  # tables are sorted by few names, and often
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key for natural sorting: 2 before 10, ward 2 before ward 10, numbers before words."""
    parts = _DIGITS.split(name)
    numbers = ((read_digits(part), part) for part in parts if part)
    return tuple((1, 0, part) if number is None else (0, number, part) for number, part in numbers)


def percent(share: float) -> str:
    """Format a share (0 to 1) as per cent with one decimal."""
    return f"{share:.1%}"


def points(difference: float) -> str:
    """Format a difference of shares as signed percentage points with one decimal."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def size(count: int) -> str:
    """Format a number of bytes with a decimal unit, such as "1.2 MB"."""
    value, place = float(count), 0
    while round(value, 1) >= 1000 and place < len(_UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.1f} {_UNITS[place]}" if place else f"{count} B"


def duration(seconds: float) -> str:
    """Format seconds as `m:ss` or `h:mm:ss`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def ago(seconds: float) -> str:
    """Format an age in the largest unit that fits: `now`, `12 s`, `5 min`, `3 h`, `2 d`."""
    if seconds < 1:
        return "now"
    for unit, length, limit in (("s", 1, 60), ("min", 60, 60), ("h", 3600, 24)):
        if seconds / length < limit:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds / 86400)} d"


def sparkline(values: Sequence[float], *, width: int) -> str:
    """Return the last `width` values as bars of eighths, scaled from the lowest of them to the highest."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    steps = len(_BARS) - 1
    return "".join(
        _BARS[round(steps * (value - low) / (high - low)) if high > low else steps // 2] for value in shown
    )
