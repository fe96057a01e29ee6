"""Guide the local phase with complementary teachers of any architecture; only their logits reach the student."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kuber.domain.acceptance import AcceptancePolicy, is_no_worse
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import (
    PublishPolicy,
    SelectionPolicy,
    has_improved,
    query_for_teachers,
    select_complementary,
)
from kuber.domain.query import Query
from kuber.domain.strategies.local import Local
from kuber.domain.strategy import Guidance, LocalPhase, Method, Situation


@dataclass(frozen=True, slots=True)
class Exchange(Local):
    """Train beside teachers that are strong on the own model's weak classes; keep the result if it is no worse."""

    name: str = "exchange"
    publishing: PublishPolicy = field(default_factory=PublishPolicy)
    selection: SelectionPolicy = field(default_factory=SelectionPolicy)
    acceptance: AcceptancePolicy = field(default_factory=AcceptancePolicy)
    guidance: Guidance = field(default_factory=Guidance)

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax", guidance=self.guidance)

    def before(self, situation: Situation) -> tuple[Method, Query] | None:
        return Method.GUIDE, query_for_teachers(situation, self.selection)

    def publishes(self, situation: Situation) -> bool:
        return has_improved(situation, self.publishing)

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        return select_complementary(candidates, situation.own, situation.ages, self.selection)

    def keep(self, before: Evaluation, after: Evaluation, *, class_counts: Sequence[int] | None = None) -> bool:
        return is_no_worse(before, after, self.acceptance, class_counts=class_counts)
