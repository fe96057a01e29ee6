"""Discover knowledge of other entities, and test what it claims before it is used."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import restricted
from kuber.domain.examination import overclaim
from kuber.domain.knowledge import WEIGHTS, Knowledge
from kuber.domain.query import MAX_LIMIT, Page, Query, all_pages, collect
from kuber.domain.ranking import exclude
from kuber.domain.strategy import Choice, Method
from kuber.domain.verification import Standing
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.attesters import Attesters
from kuber.entity.hub.candidate_models import CandidateModels, PulledCandidate
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.teacher_search import TeacherSearch
from kuber.entity.state.journal import Journal
from kuber.learning.weights import Weights

MAX_CHECKPOINTS = 1000  # initial checkpoints of a task that are looked at: anybody may publish more
MAX_FIRST_SEEN = 1000  # candidates whose first-seen round is remembered


class Discovery:
    """Discovers knowledge of other entities, tests its claims, and logs it."""

    def __init__(
        self,
        journal: Journal,
        evaluator: Evaluator,
        hub: HubAccess,
        *,
        outbox: Outbox,
        alerts: Alerts,
        search: TeacherSearch,
        models: CandidateModels,
        verified_only: bool,
        asks_why: bool = False,
    ) -> None:
        """Discover through these parts.

        With `asks_why` the registry is queried once more when there have been no teachers for a while.
        """
        self._journal = journal
        self._evaluator = evaluator
        self._hub = hub
        self._outbox = outbox
        self._alerts = alerts
        self._search = search
        self._verified_only = verified_only
        self._asks_why = asks_why
        self.models = models
        self.paces = outbox.paces
        self.publishers = models.publishers
        self.attesters = Attesters(journal, hub, outbox.availability)
        self._tested: dict[Method, dict[str, PulledCandidate]] = {}  # what `test` returned last, by knowledge id

    def candidates(self, query: Query, *, before_phase: bool = False, waited: float = 0.0) -> list[Knowledge]:
        """Return knowledge of other entities on our task that matches the query and was not refused before.

        Publishers whose models were refused are left out for some rounds. What is seen first before the local phase
        of a round counts as seen in the round before. The entity `waited` so many seconds for newer knowledge.
        """
        self._search.begin()
        if self._journal.state.entity_id is None:
            return []
        found = self.newest(query, before_phase=before_phase)
        self._journal.append("sought", {"candidates": len(found)} | ({"waited": waited} if waited else {}))
        return found

    def newest(self, query: Query, *, before_phase: bool = False) -> list[Knowledge]:
        """Return what `candidates` does, without a search being counted and logged."""
        state, task = self._journal.state, self._evaluator.model.task
        if state.entity_id is None:
            return []
        query = replace(
            query,
            task=task.name,
            test_set=task.test_set,
            exclude_entity=state.entity_id,
            initial=False,
            standing=Standing.VERIFIED if self._verified_only else query.standing,
            limit=min(MAX_LIMIT, query.limit + len(state.refused) + self.publishers.count_absent()),
        )
        if task.test_set is None:  # claims on different sets cannot be compared
            query = replace(query, min_accuracy=None, classes=(), order="newest")
        none: Sequence[Knowledge] = ()
        refused, rejected = {*state.refused, *self.models.skipped}, 0

        def is_eligible(record: Knowledge) -> bool:
            nonlocal rejected
            if not task.understands(record.task):  # of that name and test set, but with other labels
                return False
            rejected += record.id in refused
            return record.id not in refused

        eligible = self._outbox.availability.call(lambda: self._discover(query, is_eligible), none, action="discover")
        found = self.publishers.present(eligible)
        self.paces.saw(found)
        self._search.found(len(found), rejected=rejected, absent=len(eligible) - len(found))
        seen = state.round - 1 if before_phase else state.round
        current = {record.id: state.first_seen.get(record.id, seen) for record in found}
        earlier = {id: first for id, first in state.first_seen.items() if id not in current}
        kept = [*earlier.items(), *current.items()][-MAX_FIRST_SEEN:]  # the most recently seen are last
        self._journal.change(first_seen=dict(kept))
        return found

    def _discover(self, query: Query, keep: Callable[[Knowledge], bool] = lambda record: True) -> Sequence[Knowledge]:
        """Return the matching records, of several pages where large records end them early."""
        with self._outbox.availability.using("registry"):
            page = collect(self._hub.registry.discover, query, keep=keep)
        if page.omitted:
            self._alerts.warn(
                f"Records that are too large for any page are left out of what the registry lists, such as "
                f"{page.omitted[0]}.",
                cause="omitted records",
            )
        return page.items

    def initial_checkpoints(self) -> Iterator[Knowledge]:
        """Yield the initial checkpoints of our task and architecture that were not refused, oldest first."""
        model = self._evaluator.model
        query = Query(task=model.task.name, test_set=model.task.test_set, initial=True, order="oldest")

        def page(cursor: str | None) -> Page[Knowledge]:
            with self._outbox.availability.using("registry"):
                return self._hub.registry.discover(replace(query, cursor=cursor))

        for record in islice(all_pages(page), MAX_CHECKPOINTS):
            if record.architecture == model.architecture and WEIGHTS in record.artifacts:
                yield from exclude([record], self._journal.state.refused)

    @property
    def own_weights(self) -> Weights:
        """Weights of the own model; none while its owner holds it."""
        return self._journal.state.weights

    @property
    def is_reachable(self) -> bool:
        """Whether registry and vault answer, as far as known."""
        return self._outbox.availability.reason is None

    @property
    def own_id(self) -> str | None:
        """Id of this entity at the registry; None before it has joined."""
        return self._journal.state.entity_id

    def is_tested(self, knowledge: Knowledge, method: Method) -> bool:
        """Return whether the last call of `test` for this method returned this record."""
        return knowledge.id in self._tested.get(method, {})

    def test(
        self, chosen: Sequence[Knowledge], method: Method, *, by_claim: Collection[str] = ()
    ) -> list[PulledCandidate]:
        """Pull and evaluate the chosen records, and refuse those that claim more than we find.

        Records that the last call for this method returned are neither pulled nor evaluated again. Those whose ids
        are in `by_claim` are not evaluated at all. Graphs cannot be merged, so for a merge a record whose weights
        alone are worse than its claim is left out.
        """
        earlier = self._tested.get(method, {})
        tested: dict[str, PulledCandidate] = {}
        for knowledge in chosen:
            candidate = earlier.get(knowledge.id)
            pull = self.models.pull_by_claim if knowledge.id in by_claim else partial(self._test, earlier=candidate)
            if candidate is not None and (knowledge.id in by_claim or not candidate.is_claim):
                tested[knowledge.id] = replace(candidate, knowledge=knowledge)
            elif method is not Method.MERGE or knowledge.id not in self.models.graphs_only:
                candidate = self._outbox.availability.call(partial(pull, knowledge), None, action="pull")
                if candidate is not None and (method is not Method.MERGE or candidate.model.graph is None):
                    tested[knowledge.id] = candidate
        self._tested[method] = tested
        return list(tested.values())

    def _test(self, knowledge: Knowledge, *, earlier: PulledCandidate | None) -> PulledCandidate | None:
        """Evaluate a record's model, attest the evaluation, and return the model if it is as good as its claim.

        The model of an `earlier` candidate, whose claim was taken, is not pulled again.
        """
        evaluations: list[Evaluation] = []

        def flaw(candidate: PulledCandidate) -> str | None:
            found, claim = candidate.evaluation, knowledge.evaluation
            evaluations.append(found)
            if knowledge.evaluation_set is not None and knowledge.evaluation_set.cells == "partial":
                found = restricted(found, claim)  # to the classes that the claim is about
            return overclaim(claim, found, common=knowledge.task.test_set is not None)

        pulled = None if earlier is None else earlier.model
        candidate = self.models.evaluate(knowledge, flaw=flaw, pulled=pulled)
        if evaluations:
            best = max(evaluations, key=lambda evaluation: evaluation.accuracy)
            if best.test_set == knowledge.task.test_set:
                was_false = overclaim(knowledge.evaluation, best, common=True) is not None
                self.attesters.compare(knowledge, best, was_false=was_false)
                self._outbox.attest(knowledge.id, best)
        if candidate is not None and candidate.model.graph is not None and WEIGHTS in knowledge.artifacts:
            self.models.graphs_only.add(knowledge.id)
        return candidate

    def found_teachers(self) -> None:
        """Take note that teachers are used."""
        self._search.used()

    def ended_without_teachers(self, method: Method, choice: Choice | None = None) -> None:
        """Count a search that ended without a teacher, after this choice, and warn after some in a row."""
        self._search.ended_without_teachers(method, lambda: self._reason(choice))

    def _reason(self, choice: Choice | None) -> str:
        """Return the reason why the last search found no teacher."""
        search, reason = self._search, self._outbox.availability.reason
        if reason is not None or self._journal.state.entity_id is None:
            return "the hub is unreachable" if reason is not None else "the entity has not joined the hub"
        if choice is not None and choice.candidates:
            return f"the strategy chose none of {len(choice.candidates)}, as none promises to improve this model"
        if search.rejections:
            return f"all that were tried were rejected, the last because: {search.rejections[-1].rstrip('.')}"
        if search.candidates:
            return "none of the chosen models could be used"
        if search.absent:
            others = f"; {search.rejected} more were rejected before" if search.rejected else ""
            return (
                f"all records that match ({search.absent}) are of entities that are left out for some rounds, as an "
                f"earlier model of theirs was rejected or of no use{others}"
            )
        if search.rejected:
            return f"all records that match ({search.rejected}) were rejected before"
        return self._missing() or "the registry has no record that matches what the strategy seeks"

    def _missing(self) -> str | None:
        """Ask the registry for all records of a task of this name; return why none of them can be a teacher."""
        task = self._evaluator.model.task
        if not self._asks_why:
            return None
        query = Query(task=task.name, exclude_entity=self._journal.state.entity_id, initial=False, order="newest")
        availability = self._outbox.availability
        records = availability.call(lambda: self._discover(query), None, action="discover")
        if records is None:
            return "the hub does not answer"
        if not records:
            return f"no other entity has published on the task {task.name!r}"
        if any(task.understands(record.task) for record in records):
            verified = " and is verified" if self._verified_only else ""
            return f"no record of another entity claims to be better than this model{verified}"
        if all(record.task.test_set != task.test_set for record in records):
            return f"all others on the task {task.name!r} are evaluated on another common test set"
        if all(record.task.input_shape != task.input_shape for record in records):
            return f"all others on the task {task.name!r} have samples of another shape"
        return f"all others on the task {task.name!r} have other labels, or samples of another shape"
