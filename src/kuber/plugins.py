"""What installed packages add by entry point, and what a module of the user's own adds by its path."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from kuber.errors import SettingsError

DATASETS = "kuber.datasets"
PARTITIONS = "kuber.partitions"
ARCHITECTURES = "kuber.architectures"
STRATEGIES = "kuber.strategies"


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
    whose = f"{group} entry {name!r} of {packages[0]}"
    return _loaded(points[0].load, whose)


def find_by_path(path: str) -> Callable[..., Any]:
    """What `package.module:name` names; the module may lie in the working directory.

    Raises SettingsError when it cannot be imported or called.
    """
    module, _, attribute = path.partition(":")

    def load() -> Any:
        if "" not in sys.path:
            sys.path.insert(0, "")  # as `python -m` would
        return getattr(import_module(module), attribute)

    return _loaded(load, f"object {path!r}")


def _loaded(load: Callable[[], Any], whose: str) -> Callable[..., Any]:
    try:
        found = load()
    except Exception as error:  # noqa: BLE001 - another's code: whatever it raises, the user is told whose it is
        raise SettingsError(f"The {whose} cannot be imported: {type(error).__name__}: {error}.") from None
    if not callable(found):
        raise SettingsError(f"The {whose} is no function.")
    checked: Callable[..., Any] = found
    return checked
