"""The two together: relatives are merged, all others guide."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kuber.domain.knowledge import Knowledge
from kuber.domain.policies import is_mergeable, select_complementary, weak_classes
from kuber.domain.strategies.merge import Merge
from kuber.domain.strategy import Guidance, Method, Search, Situation


@dataclass(frozen=True, slots=True)
class Kuber(Merge):
    """`merge` with models of our origin and architecture, `exchange` with all others."""

    name: str = "kuber"
    guidance: Guidance | None = field(default_factory=Guidance)

    def before(self, situation: Situation) -> Search | None:
        classes = weak_classes(situation.own) if situation.own else ()
        return Search(method=Method.GUIDE, latest=True, classes=classes, limit=10 * self.choosing.limit)

    def choose(self, candidates: Sequence[Knowledge], search: Search, situation: Situation) -> Sequence[Knowledge]:
        if search.method is Method.MERGE:
            return Merge.choose(self, candidates, search, situation)
        strangers = [one for one in candidates if not is_mergeable(one, situation)]
        return select_complementary(strangers, situation.own, dict(situation.ages), self.choosing)
