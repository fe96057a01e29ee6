"""What installed packages add by entry point."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from kuber.errors import SettingsError

DATASETS = "kuber.datasets"
PARTITIONS = "kuber.partitions"


def names(group: str) -> list[str]:
    """What is offered in this group."""
    return sorted({point.name for point in entry_points(group=group)})


def owners(group: str, name: str) -> list[str]:
    """The packages that offer this name."""
    points = entry_points(group=group, name=name)
    return sorted(point.dist.name if point.dist else "an unnamed package" for point in points)


def find(group: str, name: str) -> Callable[..., Any] | None:
    """What is offered under this name; None when nothing is.

    Raises SettingsError when two packages offer it, or what is offered cannot be imported or called.
    """
    points = list(entry_points(group=group, name=name))
    if not points:
        return None
    packages = owners(group, name)
    if len(points) > 1:
        raise SettingsError(f"{' and '.join(packages)} both offer {name!r} as {group}; uninstall one of them.")
    try:
        found = points[0].load()
    except Exception as error:  # noqa: BLE001 - another's code: whatever it raises, the user is told whose it is
        raise SettingsError(
            f"The {group} entry {name!r} of {packages[0]} cannot be imported: {type(error).__name__}: {error}."
        ) from None
    if not callable(found):
        raise SettingsError(f"The {group} entry {name!r} of {packages[0]} is no function.")
    checked: Callable[..., Any] = found
    return checked
