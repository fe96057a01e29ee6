"""Plugins: entry points of installed packages, and objects that the user names as `module:name`."""

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
    """Return the names of a group's entry points, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def owners(group: str, name: str) -> list[str]:
    """Return the names of the packages that have an entry point of this name."""
    points = entry_points(group=group, name=name)
    return sorted(point.dist.name if point.dist else "an unnamed package" for point in points)


def find(group: str, name: str) -> Callable[..., Any] | None:
    """Return the object behind the entry point of this name; None if there is no such entry point.

    Raises SettingsError when two packages have one, or the object cannot be imported or called.
    """
    points = list(entry_points(group=group, name=name))
    if not points:
        return None
    packages = owners(group, name)
    if len(points) > 1:
        raise SettingsError(f"{' and '.join(packages)} both offer {name!r} as {group}; uninstall one of them.")
    return _load(points[0].load, f"{group} entry {name!r} of {packages[0]}")


def find_by_path(path: str) -> Callable[..., Any]:
    """Return the object at `package.module:name`; the module may be in the working directory.

    Raises SettingsError when it cannot be imported or called.
    """
    module, _, attribute = path.partition(":")

    def load() -> Any:
        if "" not in sys.path:
            sys.path.insert(0, "")  # as `python -m` would
        return getattr(import_module(module), attribute)

    return _load(load, f"object {path!r}")


def _load(load: Callable[[], Any], label: str) -> Callable[..., Any]:
    """Return what `load` imports; `label` names it in errors."""
    try:
        loaded = load()
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything; the message names its owner
        raise SettingsError(f"The {label} cannot be imported: {type(error).__name__}: {error}.") from None
    if not callable(loaded):
        raise SettingsError(f"The {label} is not a function or class.")
    checked: Callable[..., Any] = loaded
    return checked
