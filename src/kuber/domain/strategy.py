"""The pure decisions of an entity: when to publish, when to seek, whom to choose, what to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.ranking import better


class Move(StrEnum):
    """What an entity does after its local phase."""

    SHARE = "share"
    RETRIEVE = "retrieve"
    REST = "rest"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalPhase:
    """What the next local phase optimises. Start weights and teachers join it with the strategies that need them."""

    loss: Literal["cross-entropy", "balanced-softmax"] = "cross-entropy"
    proximal: float = 0.0  # weight of the squared distance to the weights it starts from (FedProx's mu)


class Strategy(Protocol):
    """Decisions only: nothing here trains, sends or stores."""

    @property
    def name(self) -> str: ...

    def local_phase(self) -> LocalPhase:
        """What to optimise in the coming local phase."""
        ...

    def decide(self, own: Evaluation, previous: Evaluation | None) -> Move:
        """What to do after a local phase. `previous` is the evaluation at the end of the round before."""
        ...

    def choose(self, candidates: Sequence[Knowledge], own: Evaluation) -> Sequence[Knowledge]:
        """The teachers to learn from, best first; none when no candidate helps."""
        ...

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        """Whether what was absorbed stays."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """Never shares and never retrieves: the honest floor of every comparison."""

    name: str = "local"

    def local_phase(self) -> LocalPhase:
        return LocalPhase()

    def decide(self, own: Evaluation, previous: Evaluation | None) -> Move:
        return Move.REST

    def choose(self, candidates: Sequence[Knowledge], own: Evaluation) -> Sequence[Knowledge]:
        return []

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class LocalBalanced(Local):
    """`local` with a loss that corrects for the entity's class frequencies: a floor that knows its own data."""

    name: str = "local-balanced"

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax")


@dataclass(frozen=True, slots=True)
class Vanilla:
    """Share after an improvement, retrieve from the single best other after a degradation, keep the result."""

    name: str = "vanilla"

    def local_phase(self) -> LocalPhase:
        return LocalPhase()

    def decide(self, own: Evaluation, previous: Evaluation | None) -> Move:
        if previous is None or own.accuracy > previous.accuracy:
            return Move.SHARE
        return Move.RETRIEVE if own.accuracy < previous.accuracy else Move.REST

    def choose(self, candidates: Sequence[Knowledge], own: Evaluation) -> Sequence[Knowledge]:
        return better(candidates, own)[:1]

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        return True


STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in (Vanilla(), Local(), LocalBalanced())}
