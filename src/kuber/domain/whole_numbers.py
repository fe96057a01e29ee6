"""Whole numbers, whichever type they come in: Python's, numpy's or torch's."""

import operator
from typing import Any

LIMIT = 2**63  # of counts in messages
HUGE = 10**18  # stands for all longer numbers: Python refuses to read one of more than 4,300 digits


def whole_number(value: Any) -> int | None:
    """Return the value as an int; None for anything that is not a whole number, such as True, "3" or 2.5."""
    if type(value) is int:  # the usual case
        return value
    if isinstance(value, bool | str | bytes) or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except TypeError:
        pass
    except Exception:  # noqa: BLE001 - an array of several numbers may raise anything
        return None
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 - so may any other object
        return None
    return int(number) if number.is_integer() else None


def read_digits(text: str | bytes) -> int | None:
    """Return the number in decimal digits, HUGE for a longer one; None for any other text, such as "-1" or "²"."""
    if not text.isascii() or not text.isdigit():
        return None
    return min(int(text), HUGE) if len(text) < 100 else HUGE


def counts_of(values: Any) -> tuple[int, ...] | None:
    """Return the values as counts, whole numbers from 0; None if one of them is none."""
    numbers = [whole_number(value) for value in values]
    counts = tuple(number for number in numbers if number is not None and 0 <= number < LIMIT)
    return counts if len(counts) == len(numbers) else None
