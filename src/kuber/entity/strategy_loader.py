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
    missing = missing_decision(strategy)
    if missing is not None:
        raise SettingsError(f"The strategy {name!r} has no {missing!r}; see docs/strategy.md.")
    return strategy


def missing_decision(strategy: object) -> str | None:
    """Return the first method of `Strategy` that an object lacks, or `waits` beside `waiting`; None if it has all."""
    needed = _DECISIONS if getattr(strategy, "waiting", None) is None else (*_DECISIONS, "waits")
    return next((decision for decision in needed if not hasattr(strategy, decision)), None)


def strategy_names() -> list[str]:
    """Return the name of every built-in and installed strategy."""
    return list(dict.fromkeys([*STRATEGIES, *plugins.names(plugins.STRATEGIES)]))
