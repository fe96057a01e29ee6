"""A custom strategy in one file: `exchange` with at most two teachers, the most accurate ones.

kuber compare --strategies local,exchange,custom_strategy:Elitist --dataset digits --architecture mlp --num-rounds 6
(in this folder; anywhere else, an installed package may offer it as an entry point of `kuber.strategies`)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kuber import Knowledge
from kuber.strategies import Choice, Exchange, Method, Situation, more_accurate


@dataclass(frozen=True, slots=True)
class Elitist(Exchange):
    """Learns from the two best models that are better than its own; publishes only a model better than its last."""

    name: str = "elitist"

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        return more_accurate(candidates, situation.own)[:2] if situation.own else []

    def explain(self, choice: Choice) -> str:
        found = " and ".join(f"{100 * teacher.evaluation.accuracy:.1f} %" for teacher in choice.absorbed)
        return f"Chosen as the best of {len(choice.candidates)}, two at most; found {found}."

    def publishes(self, situation: Situation) -> bool:
        own, published = situation.own, situation.published
        return own is not None and (published is None or own.accuracy > published.accuracy)
