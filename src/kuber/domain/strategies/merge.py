"""Average weights with entities of the same architecture and initial checkpoint, without any barrier."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from kuber.domain.acceptance import AcceptancePolicy, is_no_worse
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import (
    MergePolicy,
    OuterStepPolicy,
    SelectionPolicy,
    WaitingPolicy,
    is_mergeable,
    is_too_old,
    merge_shares,
    more_are_expected,
    most_recent,
)
from kuber.domain.query import Query
from kuber.domain.strategies.local import Local
from kuber.domain.strategy import Candidate, Guidance, LocalPhase, Method, Situation


@dataclass(frozen=True, slots=True)
class Merge(Local):
    """Publish after every local phase, and average with the newest models of others."""

    name: str = "merge"
    common_start: bool = True
    selection: SelectionPolicy = field(default_factory=SelectionPolicy)
    merging: MergePolicy = field(default_factory=MergePolicy)
    outer_step: OuterStepPolicy | None = field(default_factory=OuterStepPolicy)  # None: phases start at the average
    waiting: WaitingPolicy | None = field(default_factory=WaitingPolicy)  # None: no entity waits for another
    acceptance: AcceptancePolicy = field(
        default_factory=lambda: AcceptancePolicy(tolerance=0.05, class_tolerance=0.3)
    )  # measured: averages dip before they gain
    guidance: Guidance | None = None  # measured: a teacher, be it the average itself, holds the local phase back

    def local_phase(self) -> LocalPhase:
        return LocalPhase(loss="balanced-softmax", guidance=self.guidance)

    def publishes(self, situation: Situation) -> bool:
        return True

    def after(self, situation: Situation) -> tuple[Method, Query] | None:
        if situation.origin is None:
            return None
        limit = 3 * self.merging.limit  # some may be refused
        return Method.MERGE, Query(origin=situation.origin, latest=True, order="newest", limit=limit)

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        mergeable = [
            candidate
            for candidate in candidates
            if is_mergeable(candidate, situation) and not is_too_old(candidate, situation, self.merging)
        ]
        most = self.merging.most * situation.samples if situation.samples else inf
        return most_recent(mergeable, situation.ages, self.merging.limit, most=most)

    def waits(self, candidates: Sequence[Knowledge], situation: Situation) -> bool:
        """Return whether to wait for newer models than these before a merge, for the time that `waiting` sets."""
        return more_are_expected(candidates, situation, self.merging, self.waiting or WaitingPolicy())

    def shares(self, candidates: Sequence[Candidate], situation: Situation) -> Sequence[float]:
        return merge_shares(candidates, situation, self.merging)

    def keep(self, before: Evaluation, after: Evaluation, *, class_counts: Sequence[int] | None = None) -> bool:
        return is_no_worse(before, after, self.acceptance, class_counts=class_counts)
