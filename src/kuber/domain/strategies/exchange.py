"""For entities of any architectures: teachers guide the local phase, and only their logits reach the student."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import (
    AcceptancePolicy,
    PublishPolicy,
    SelectionPolicy,
    has_improved,
    is_no_worse,
    select_complementary,
    weak_classes,
)
from kuber.domain.strategies.local import Local
from kuber.domain.strategy import Guidance, LocalPhase, Method, Search, Situation


@dataclass(frozen=True, slots=True)
class Exchange(Local):
    """Teachers that know what we lack speak during the local epochs; what comes out is kept if it is no worse."""

    name: str = "exchange"
    publishing: PublishPolicy = field(default_factory=PublishPolicy)
    choosing: SelectionPolicy = field(default_factory=SelectionPolicy)
    keeping: AcceptancePolicy = field(default_factory=AcceptancePolicy)
    guidance: Guidance = field(default_factory=Guidance)

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax", guidance=self.guidance)

    def before(self, situation: Situation) -> Search | None:
        classes = weak_classes(situation.own) if situation.own else ()
        return Search(method=Method.GUIDE, latest=True, classes=classes, limit=10 * self.choosing.limit)

    def publishes(self, situation: Situation) -> bool:
        return has_improved(situation, self.publishing)

    def choose(self, candidates: Sequence[Knowledge], search: Search, situation: Situation) -> Sequence[Knowledge]:
        return select_complementary(candidates, situation.own, dict(situation.ages), self.choosing)

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        return is_no_worse(before, after, self.keeping)
