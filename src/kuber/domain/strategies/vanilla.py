"""Distil the single best other model: the strategy of KUber's research proof of concept."""

from collections.abc import Sequence
from dataclasses import dataclass

from kuber.domain.knowledge import Knowledge
from kuber.domain.query import Query
from kuber.domain.ranking import more_accurate
from kuber.domain.strategies.local import Local
from kuber.domain.strategy import Method, Situation


@dataclass(frozen=True, slots=True)
class Vanilla(Local):
    """Publish after an improvement; after a degradation distil the single best other. The result is always kept.

    It trusts claims: one false one is enough to be chosen. Use it among entities that would not lie, or to compare.
    """

    name: str = "vanilla"

    def publishes(self, situation: Situation) -> bool:
        own, previous = situation.own, situation.previous
        return own is not None and (previous is None or own.accuracy > previous.accuracy)

    def after(self, situation: Situation) -> tuple[Method, Query] | None:
        own, previous = situation.own, situation.previous
        if own is None or previous is None or own.accuracy >= previous.accuracy:
            return None
        return Method.DISTIL, Query(min_accuracy=own.accuracy, limit=10)

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        return more_accurate(candidates, situation.own)[:1] if situation.own else []
