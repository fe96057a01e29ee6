"""For entities of any architectures: teachers guide the local phase, and only their logits reach the student."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import (
    Choosing,
    Keeping,
    Publishing,
    adds_something,
    complementary,
    lacking,
    no_worse,
)
from kuber.domain.strategies.local import Local
from kuber.domain.strategy import Guidance, LocalPhase, Method, Search, Situation


@dataclass(frozen=True, slots=True)
class Exchange(Local):
    """Teachers that know what we lack speak during the local epochs; what comes out is kept if it is no worse."""

    name: str = "exchange"
    publishing: Publishing = field(default_factory=Publishing)
    choosing: Choosing = field(default_factory=Choosing)
    keeping: Keeping = field(default_factory=Keeping)
    guidance: Guidance = field(default_factory=Guidance)

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax", guidance=self.guidance)

    def before(self, situation: Situation) -> Search | None:
        classes = lacking(situation.own) if situation.own else ()
        return Search(method=Method.GUIDE, latest=True, classes=classes, limit=10 * self.choosing.limit)

    def publishes(self, situation: Situation) -> bool:
        return adds_something(situation, self.publishing)

    def choose(self, candidates: Sequence[Knowledge], search: Search, situation: Situation) -> Sequence[Knowledge]:
        return complementary(candidates, situation.own, dict(situation.ages), self.choosing)

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        return no_worse(before, after, self.keeping)
