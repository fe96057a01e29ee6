"""A strategy of one's own in one file: as `exchange`, but only the two most accurate are ever heard.

kuber compare --strategies local,exchange,custom_strategy:Elitist --dataset digits --architecture mlp --num-rounds 6
(in this folder; anywhere else, an installed package may offer it as an entry point of `kuber.strategies`)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import kuber


@dataclass(frozen=True, slots=True)
class Elitist(kuber.Exchange):
    """Learns from the best two, if they are better than we are; publishes only what is better than ever before."""

    name: str = "elitist"

    def choose(
        self, candidates: Sequence[kuber.Knowledge], search: kuber.Search, situation: kuber.Situation
    ) -> Sequence[kuber.Knowledge]:
        return kuber.better(candidates, situation.own)[:2] if situation.own else []

    def explain(self, choice: kuber.Choice) -> str:
        found = " and ".join(f"{100 * one.evaluation.accuracy:.1f} %" for one in choice.absorbed)
        return f"Chosen as the best of {len(choice.candidates)}, two at most; found {found}."

    def publishes(self, situation: kuber.Situation) -> bool:
        own, shared = situation.own, situation.shared
        return own is not None and (shared is None or own.accuracy > shared.accuracy)
