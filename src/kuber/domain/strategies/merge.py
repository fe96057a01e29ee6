"""For entities that share an architecture and an initial checkpoint: weights are averaged, without any barrier."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import (
    AcceptancePolicy,
    MergePolicy,
    SelectionPolicy,
    is_mergeable,
    is_no_worse,
    merge_shares,
    most_recent,
)
from kuber.domain.strategies.local import Local
from kuber.domain.strategy import Candidate, Guidance, LocalPhase, Method, Search, Situation


@dataclass(frozen=True, slots=True)
class Merge(Local):
    """Publish every local phase, and average with the others' newest."""

    name: str = "merge"
    common_start: bool = True
    choosing: SelectionPolicy = field(default_factory=SelectionPolicy)
    merging: MergePolicy = field(default_factory=MergePolicy)
    keeping: AcceptancePolicy = field(
        default_factory=lambda: AcceptancePolicy(tolerance=0.05)
    )  # measured: averages dip before they gain
    guidance: Guidance | None = None  # measured: a guide, be it the average itself, holds the local phase back

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax", guidance=self.guidance)

    def publishes(self, situation: Situation) -> bool:
        return True

    def after(self, situation: Situation) -> Search | None:
        if situation.origin is None:
            return None
        return Search(method=Method.MERGE, origin=situation.origin, latest=True, limit=10 * self.choosing.limit)

    def choose(self, candidates: Sequence[Knowledge], search: Search, situation: Situation) -> Sequence[Knowledge]:
        relatives = [one for one in candidates if is_mergeable(one, situation)]
        return most_recent(relatives, dict(situation.ages), self.choosing.limit)

    def shares(self, candidates: Sequence[Candidate], situation: Situation) -> Sequence[float]:
        return merge_shares(candidates, situation, self.merging)

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        return is_no_worse(before, after, self.keeping)
