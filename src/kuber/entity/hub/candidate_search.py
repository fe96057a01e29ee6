"""Search among candidates: those chosen are examined before they take a place, and others tried in their stead."""

from collections.abc import Sequence

from kuber.domain.examination import (
    MAX_EXAMINED,
    MAX_FAILED,
    as_found,
    claims_taken,
    distinct_publishers,
    to_examine,
    without_copies,
)
from kuber.domain.knowledge import Knowledge
from kuber.domain.publisher_record import NEW
from kuber.domain.strategy import Choice, Method, Situation, Strategy
from kuber.domain.task import Task
from kuber.entity.hub.candidate_models import PulledCandidate
from kuber.entity.hub.discovery import Discovery
from kuber.learning.near_copies import is_near_copy

MAX_ASKED = 16  # records whose attestations are read in one search


class CandidateSearch:
    """Chooses and examines candidates until the strategy's choice consists of examined ones."""

    def __init__(self, strategy: Strategy, discovery: Discovery, task: Task) -> None:
        """Search for a strategy, with evaluations over the labels of `task`, the entity's own."""
        self._task = task
        self._strategy = strategy
        self._discovery = discovery

    def choose(
        self,
        candidates: Sequence[Knowledge],
        method: Method,
        situation: Situation,
        *,
        checked: int | None = None,
    ) -> tuple[Choice, list[PulledCandidate]]:
        """Return the choice, with those that were refused or of no use, and the examined models to absorb.

        At most `kuber.domain.examination.MAX_EXAMINED` models are pulled. With a number `checked`, so many are
        evaluated, and the claims of the others taken; when one is refused, all are evaluated.
        """
        left = distinct_publishers(candidates)
        passed: dict[str, PulledCandidate] = {}
        failed: dict[str, Knowledge] = {}
        doubted: list[Knowledge] = []
        asked: set[str] = set()
        opened = False  # to others than proven publishers, after these
        tries = 0
        while True:
            if tries and not self._discovery.is_reachable:
                tries = MAX_EXAMINED
            pool = to_examine(
                without_copies(left, self._discovery.models.refused),
                passed,
                self._discovery.publishers.all,
                tries=tries,
                failed=0 if opened else len(failed),
            )
            chosen = list(self._strategy.choose(pool, method, situation))
            unknown = [record for record in chosen if record.id not in passed]
            if not unknown and not opened and len(failed) >= MAX_FAILED and tries < MAX_EXAMINED:
                opened = True
                continue
            if not unknown and doubted and not passed and tries < MAX_EXAMINED:
                left, doubted = [*left, *doubted], []  # those are examined last
                continue
            if not unknown:
                break
            dubious = self._dubious(unknown, asked, method) if failed or self._discovery.attesters.have_reason else []
            if dubious:
                doubted += dubious
                left = [record for record in left if record not in dubious]
                continue
            new = {record.id for record in unknown if not self._discovery.is_tested(record, method)}
            tries += len(new)
            by_claim = set() if checked is None else self._by_claim(chosen, situation, checked)
            for candidate in self._discovery.test(chosen, method, by_claim=by_claim):
                id = candidate.knowledge.id
                if id not in passed and self.is_useful(candidate, method, situation, new=id in new):
                    passed[id] = candidate
            self._drop_near_copies(passed)
            failed |= {record.id: record for record in unknown if record.id not in passed}
            if checked is not None and any(id in self._discovery.models.refused for id in failed):
                checked = None  # all others are evaluated too
                passed = {id: candidate for id, candidate in passed.items() if not candidate.is_claim}
            left = [record for record in left if record.id not in failed]
        models = [passed[record.id] for record in chosen]
        choice = Choice(method=method, situation=situation, candidates=candidates, chosen=[*chosen, *failed.values()])
        return choice, models

    def _by_claim(self, chosen: Sequence[Knowledge], situation: Situation, checked: int) -> set[str]:
        """Return the ids of the records whose claims are taken."""
        publishers, reader = self._discovery.publishers.all, self._discovery.own_id
        assert reader is not None, "an entity that finds candidates has joined"
        return claims_taken(chosen, publishers, situation.own, checked=checked, reader=reader)

    def _dubious(self, chosen: Sequence[Knowledge], asked: set[str], method: Method) -> list[Knowledge]:
        """Return those of the chosen whose claims attesters contradict; add those asked about to `asked`."""
        publishers, found = self._discovery.publishers.all, []
        for record in chosen:
            known = publishers.get(record.entity, NEW).proven or self._discovery.is_tested(record, method)
            if known or record.id in asked or len(asked) >= MAX_ASKED:
                continue
            asked.add(record.id)
            if self._discovery.attesters.doubt(record):
                found.append(record)
        return found

    def _drop_near_copies(self, passed: dict[str, PulledCandidate]) -> None:
        """Drop each model that is another one with a little noise, unless it was published before that."""
        own = self._discovery.own_weights
        kept: list[PulledCandidate] = []
        for candidate in sorted(passed.values(), key=lambda each: (each.knowledge.published_at, each.knowledge.id)):
            weights = candidate.model.weights
            if any(is_near_copy(weights, other.model.weights, own) for other in kept):
                del passed[candidate.knowledge.id]
            else:
                kept.append(candidate)

    def is_useful(self, candidate: PulledCandidate, method: Method, situation: Situation, *, new: bool) -> bool:
        """Return whether a sound model is worth a place by our own evaluation of it.

        It is added to its publisher's track record, unless it is in use already or was not evaluated.
        """
        if method is Method.MERGE:
            useful = self._strategy.shares([candidate], situation)[0] > 0
        else:
            found = as_found(candidate.knowledge, candidate.evaluation, self._task)
            useful = bool(self._strategy.choose([found], method, situation))
        if (new or not useful) and not candidate.is_claim:
            self._discovery.publishers.add_sound(candidate.knowledge.entity, useful=useful)
        return useful
