"""The built-in strategies, by name."""

from kuber.domain.strategies.exchange import Exchange
from kuber.domain.strategies.kuber import Kuber
from kuber.domain.strategies.local import Local, LocalBalanced
from kuber.domain.strategies.merge import Merge
from kuber.domain.strategies.vanilla import Vanilla
from kuber.domain.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (Kuber(), Exchange(), Merge(), Vanilla(), Local(), LocalBalanced())
}

__all__ = ["STRATEGIES", "Exchange", "Kuber", "Local", "LocalBalanced", "Merge", "Vanilla"]
