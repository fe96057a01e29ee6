"""Merge mergeable models, and be guided by all others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import ProxyPolicy, is_mergeable, query_for_teachers, select_complementary
from kuber.domain.query import Query
from kuber.domain.strategies.merge import Merge
from kuber.domain.strategy import Guidance, Method, Situation


@dataclass(frozen=True, slots=True)
class Kuber(Merge):
    """`merge` with models of the same origin and architecture, `exchange` with all others.

    Entities of several architectures train proxies of one, which are merged.
    """

    name: str = "kuber"
    guidance: Guidance | None = field(default_factory=Guidance)
    proxy: ProxyPolicy | None = field(default_factory=ProxyPolicy)  # None: no proxies, whatever the architectures

    def before(self, situation: Situation) -> tuple[Method, Query] | None:
        return Method.GUIDE, query_for_teachers(situation, self.selection)

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        if method is Method.MERGE:
            return Merge.choose(self, candidates, method, situation)
        others = [candidate for candidate in candidates if not is_mergeable(candidate, situation)]
        return select_complementary(others, situation.own, situation.ages, self.selection)
