"""Learning alone: the honest floors of every comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

from kuber.domain.evaluation import Evaluation
from kuber.domain.explanation import reason_for
from kuber.domain.knowledge import Knowledge
from kuber.domain.strategy import Candidate, Choice, LocalPhase, Search, Situation


@dataclass(frozen=True, slots=True)
class Local:
    """Never publishes and never seeks."""

    name: str = "local"
    common_start: bool = False

    def local_phase(self) -> LocalPhase:
        return LocalPhase()

    def before(self, situation: Situation) -> Search | None:
        return None

    def publishes(self, situation: Situation) -> bool:
        return False

    def after(self, situation: Situation) -> Search | None:
        return None

    def choose(self, candidates: Sequence[Knowledge], search: Search, situation: Situation) -> Sequence[Knowledge]:
        return []

    def shares(self, candidates: Sequence[Candidate], situation: Situation) -> Sequence[float]:
        return [0.0] * len(candidates)

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        return True

    def explain(self, choice: Choice) -> str:
        return reason_for(choice)


@dataclass(frozen=True, slots=True)
class LocalBalanced(Local):
    """`local` with a loss that corrects for the entity's class frequencies: a floor that knows its own data."""

    name: str = "local-balanced"

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax")
