"""The labels of a task that the classes of other data are."""

import logging
from collections.abc import Sequence

from kuber.errors import DatasetError

SHOWN = 5  # places named in a warning
LISTED = 20  # labels named in an error

log = logging.getLogger("kuber")


def match_classes(names: Sequence[str], labels: Sequence[str], *, source: object) -> list[int]:
    """Return for each class name of `source` the place of its label in `labels`.

    A name that is a label is that label; a number is also the label of the same value, as 1 is "01". Only where no
    name is a label, numbers are taken for places in `labels`, from 0, and a warning says so. Raises DatasetError
    naming the first name that is no label.
    """
    found = [_place_of(name, labels) for name in names]
    if found and all(place is None for place in found):
        found = [number if (number := _number(name)) in range(len(labels)) else None for name in names]
        if None not in found:
            _warn_of_places(names, labels, source)
    places = [place for place in found if place is not None]
    if len(places) < len(names):
        listed = f"{', '.join(labels[:LISTED])}{', ...' if labels[LISTED:] else ''}"
        raise DatasetError(f"In {source}: the task has no class {names[found.index(None)]!r}, but: {listed}.")
    if len(set(places)) != len(places):
        raise DatasetError(f"In {source}, two classes are the same label of the task: {', '.join(names[:LISTED])}.")
    return places


def _place_of(name: str, labels: Sequence[str]) -> int | None:
    """Return the place of the label with this name, or else of the only label of this value."""
    if name in labels:
        return labels.index(name)
    value = _number(name)
    same = [place for place, label in enumerate(labels) if value is not None and _number(label) == value]
    return same[0] if len(same) == 1 else None


def _number(name: str) -> int | None:
    """Return the whole number that a name is, such as "2", "02", "2.0" or "-1"; None if it is none."""
    if name in ("False", "True"):  # labels of dtype bool
        return int(name == "True")
    whole, _, fraction = name.partition(".")
    digits = whole.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 18 or fraction.strip("0") or name.endswith("."):
        return None
    return int(whole)


def _warn_of_places(names: Sequence[str], labels: Sequence[str], source: object) -> None:
    rest = ", ..." if names[SHOWN:] else ""
    pairs = ", ".join(f"{name} is {labels[_number(name) or 0]}" for name in names[:SHOWN])
    classes = ", ".join(names[:SHOWN])
    log.warning("The classes %s%s of %s are taken for places: %s%s.", classes, rest, source, pairs, rest)
