"""Learn alone: the strategies that all others are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from kuber.domain.evaluation import Evaluation
from kuber.domain.explanation import reason_for
from kuber.domain.knowledge import Knowledge
from kuber.domain.query import Query
from kuber.domain.strategy import Candidate, Choice, LocalPhase, Method, Situation


@dataclass(frozen=True, slots=True)
class Local:
    """Train alone: publish and discover nothing."""

    name: str = "local"
    common_start: bool = False

    def local_phase(self) -> LocalPhase:
        return LocalPhase()

    def before(self, situation: Situation) -> tuple[Method, Query] | None:
        return None

    def publishes(self, situation: Situation) -> bool:
        return False

    def after(self, situation: Situation) -> tuple[Method, Query] | None:
        return None

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        return []

    def shares(self, candidates: Sequence[Candidate], situation: Situation) -> Sequence[float]:
        return [0.0] * len(candidates)

    def keep(self, before: Evaluation, after: Evaluation, *, class_counts: Sequence[int] | None = None) -> bool:
        return True

    def explain(self, choice: Choice) -> str:
        return reason_for(choice)


@dataclass(frozen=True, slots=True)
class LocalBalanced(Local):
    """Train alone with balanced softmax, which corrects for the entity's class frequencies."""

    name: str = "local-balanced"

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax")
