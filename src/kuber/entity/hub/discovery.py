"""Discover knowledge of other entities, pull it, and evaluate it before it is used."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from kuber.domain.knowledge import WEIGHTS, Knowledge
from kuber.domain.query import MAX_LIMIT, Query, all_pages
from kuber.domain.ranking import exclude
from kuber.domain.strategy import Candidate, Method
from kuber.domain.verification import Standing
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.trust import Trust
from kuber.entity.state.journal import Journal
from kuber.entity.state.storage import Storage
from kuber.entity.work.learner import TeacherModel
from kuber.errors import KnowledgeError
from kuber.learning.compatibility import runnable_kind

MAX_FIRST_SEEN = 1000  # candidates whose first-seen round is remembered
TOLERANCE = 0.02  # by which a claim may exceed our own evaluation: other machines round differently

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PulledCandidate(Candidate):
    """A candidate with its model."""

    model: TeacherModel
    publisher: str | None = None  # name of the entity that published it


class Discovery:
    """Discovers, pulls and evaluates knowledge of other entities, and logs it."""

    def __init__(
        self,
        journal: Journal,
        evaluator: Evaluator,
        hub: HubAccess,
        storage: Storage,
        *,
        outbox: Outbox,
        trust: Trust,
        verified_only: bool,
    ) -> None:
        self._journal = journal
        self._evaluator = evaluator
        self._hub = hub
        self._storage = storage
        self._outbox = outbox
        self._trust = trust
        self._verified_only = verified_only
        self._publishers: dict[str, str] = {}  # entity id -> name
        self._tested: dict[Method, dict[str, PulledCandidate]] = {}  # what `test` returned last, by knowledge id

    def candidates(self, query: Query) -> list[Knowledge]:
        """Return knowledge of other entities on our task that matches the query and was not refused before."""
        state, task = self._journal.state, self._evaluator.model.task
        query = replace(
            query,
            task=task.name,
            test_set=task.test_set,
            exclude_entity=state.entity_id,
            initial=False,
            standing=Standing.VERIFIED if self._verified_only else query.standing,
            limit=min(MAX_LIMIT, query.limit + len(state.refused)),
        )
        if task.test_set is None:  # claims on different sets cannot be compared
            query = replace(query, min_accuracy=None, classes=(), order="newest")
        records: Sequence[Knowledge] = self._outbox.availability.call(
            lambda: self._hub.registry.discover(query).items, ()
        )
        # A task of that name and test set may still have other labels.
        found = exclude((record for record in records if task.understands(record.task)), state.refused)
        current = {record.id: state.first_seen.get(record.id, state.round) for record in found}
        earlier = {id: first for id, first in state.first_seen.items() if id not in current}
        kept = [*earlier.items(), *current.items()][-MAX_FIRST_SEEN:]  # the most recently seen are last
        self._journal.change(first_seen=dict(kept))
        self._journal.append("sought", {"candidates": len(found)})
        return found

    def initial_checkpoints(self) -> Iterator[Knowledge]:
        """Yield the initial checkpoints of our task and architecture that were not refused, oldest first."""
        model = self._evaluator.model
        query = Query(task=model.task.name, test_set=model.task.test_set, initial=True, order="oldest")
        for record in all_pages(lambda cursor: self._hub.registry.discover(replace(query, cursor=cursor))):
            if record.architecture == model.architecture and WEIGHTS in record.artifacts:
                yield from exclude([record], self._journal.state.refused)

    def pull(self, knowledge: Knowledge) -> TeacherModel | None:
        """Return the checked model of a record; refuse the record and return None when it is unsound."""
        model, cache = self._evaluator.model, self._storage.cache
        received = 0
        try:
            kind = runnable_kind(knowledge, model.task, model.can_load)
            self._publishers[knowledge.entity] = self._trust.check(knowledge).name
            digest = knowledge.artifacts[kind].digest
            data = None if cache is None else cache.get(digest)
            if data is None:
                data = self._hub.vault.get(digest)
                received = len(data)
                if cache is not None:
                    cache.keep(digest, data)
            teacher = TeacherModel(
                architecture=knowledge.architecture,
                weights=self._storage.weights.load(digest, data, knowledge.architecture) if kind == WEIGHTS else {},
                graph=None if kind == WEIGHTS else data,
                task=knowledge.task,
            )
        except KnowledgeError as error:
            self.refuse(knowledge, error.message, received=received)
            return None
        detail = {
            "knowledge": knowledge.id,
            "publisher": knowledge.entity,
            "accuracy": knowledge.evaluation.accuracy,
            "bytes": received,
        }
        self._journal.append("pulled", detail)
        return teacher

    def pull_if_reachable(self, knowledge: Knowledge) -> TeacherModel | None:
        """Pull as `pull` does; None also when the hub is unreachable."""
        return self._outbox.availability.call(partial(self.pull, knowledge), None)

    def evaluate(self, knowledge: Knowledge, model: TeacherModel | None) -> PulledCandidate | None:
        """Return a pulled model with our evaluation; refuse it and return None when it is unsound."""
        if model is None:
            return None
        evaluation = self.refuse_if_unsound(partial(self._evaluator.candidate, knowledge, model), knowledge)
        if evaluation is None:
            return None
        publisher = self._publishers.get(knowledge.entity)
        return PulledCandidate(knowledge=knowledge, evaluation=evaluation, model=model, publisher=publisher)

    def test(self, chosen: Sequence[Knowledge], method: Method) -> list[PulledCandidate]:
        """Pull and evaluate the chosen records, and refuse those that claim more than we find.

        Records that the last call for this method returned are neither pulled nor evaluated again.
        """
        earlier = self._tested.get(method, {})
        tested: dict[str, PulledCandidate] = {}
        for knowledge in chosen:
            candidate = earlier.get(knowledge.id)
            if candidate is not None:
                tested[knowledge.id] = replace(candidate, knowledge=knowledge)
                continue
            candidate = self.evaluate(knowledge, self.pull_if_reachable(knowledge))
            if candidate is None:
                continue
            claimed, found = knowledge.evaluation.accuracy, candidate.evaluation
            if found.test_set == knowledge.task.test_set:
                self._outbox.attest(knowledge.id, found)
            if found.test_set == knowledge.evaluation.test_set and claimed > found.accuracy + TOLERANCE:
                self.refuse(knowledge, f"It claims an accuracy of {claimed:.3f} and has {found.accuracy:.3f}.")
                continue
            tested[knowledge.id] = candidate
        self._tested[method] = tested
        return list(tested.values())

    def refuse_if_unsound(self, function: Callable[[], T], *knowledge: Knowledge) -> T | None:
        """Return the result of a function that runs these models; refuse them and return None on KnowledgeError.

        Sound weights may still return invalid logits.
        """
        try:
            return function()
        except KnowledgeError as error:
            for record in knowledge:
                self.refuse(record, error.message)
            return None

    def refuse(self, knowledge: Knowledge, reason: str, *, received: int = 0) -> None:
        """Log why a record is unsound, and how many bytes of it were received; never pull it again."""
        self._journal.change(refused=(*self._journal.state.refused, knowledge.id))
        self._journal.append("rejected", {"knowledge": knowledge.id, "reason": reason, "bytes": received})
