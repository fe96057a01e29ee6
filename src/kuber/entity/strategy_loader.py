"""Strategies by name: the built-in ones, those of installed packages, and those of the user's own modules."""

from kuber import plugins
from kuber.domain.strategies import STRATEGIES
from kuber.domain.strategy import Strategy
from kuber.errors import SettingsError

_DECISIONS = ("common_start", "local_phase", "before", "publishes", "after", "choose", "shares", "keep")


def strategy_named(name: str) -> Strategy:
    """The strategy with this name, or the one that `package.module:name` makes when it is called.

    Raises SettingsError when there is none, or what is offered lacks one of the decisions.
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
    except Exception as error:  # noqa: BLE001 - another's code: whatever it raises, the user is told whose it is
        raise SettingsError(f"The strategy {name!r} cannot be made: {type(error).__name__}: {error}.") from None
    lacking = [decision for decision in _DECISIONS if not hasattr(strategy, decision)]
    if lacking:
        raise SettingsError(f"The strategy {name!r} does not decide {lacking[0]!r}: see docs/strategy.md.")
    return strategy


def strategy_names() -> list[str]:
    """Every strategy that is known by name."""
    return list(dict.fromkeys([*STRATEGIES, *plugins.names(plugins.STRATEGIES)]))
