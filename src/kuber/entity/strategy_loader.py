"""Load a strategy by name: built in, from an installed package, or from the user's own module."""

from kuber import plugins
from kuber.domain.strategies import STRATEGIES
from kuber.domain.strategy import Strategy
from kuber.errors import SettingsError

_DECISIONS = ("common_start", "local_phase", "before", "publishes", "after", "choose", "shares", "keep")


def strategy_named(name: str) -> Strategy:
    """Return the strategy with this name, or the result of calling `package.module:name`.

    Raises SettingsError when there is none, or it lacks a method of `Strategy`.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    make = plugins.find_by_path(name) if ":" in name else plugins.find(plugins.STRATEGIES, name)
    if make is None:
        raise SettingsError(
            f"There is no strategy {name!r}; choose from: {', '.join(strategy_names())}, or give module:name."
        )
    try:
        strategy: Strategy = make()
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything
        raise SettingsError(f"The strategy {name!r} cannot be created: {type(error).__name__}: {error}.") from None
    missing = [decision for decision in _DECISIONS if not hasattr(strategy, decision)]
    if missing:
        raise SettingsError(f"The strategy {name!r} has no {missing[0]!r}; see docs/strategy.md.")
    return strategy


def strategy_names() -> list[str]:
    """Return the name of every built-in and installed strategy."""
    return list(dict.fromkeys([*STRATEGIES, *plugins.names(plugins.STRATEGIES)]))
