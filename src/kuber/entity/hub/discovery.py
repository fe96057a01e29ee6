"""Finding knowledge of others, pulling it, and finding out what it is worth before it is used."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Knowledge
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import MAX_LIMIT, Query
from kuber.domain.ranking import exclude
from kuber.domain.strategy import Candidate, Method
from kuber.domain.task import Task
from kuber.domain.verification import Standing
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.hub.outbox import Outbox
from kuber.entity.hub.trust import Trust
from kuber.entity.state.blob_cache import BlobCache
from kuber.entity.state.journal import Journal
from kuber.entity.work.learner import TeacherModel
from kuber.entity.work.steps import EvaluationResult, Execute, Work
from kuber.entity.work.weight_store import MemoryWeightStore, WeightStore
from kuber.errors import KnowledgeError
from kuber.learning.compatibility import CanLoad, can_load_by_name, runnable_kind
from kuber.learning.weights import Weights

REMEMBERED = 1000  # candidates whose first sight we remember
EvaluationFactory = Callable[[Weights, TeacherModel | None], Work]
TOLERANCE = 0.02  # by which a claim may exceed what we find: other machines round otherwise


class Discovery:
    """What an entity learns from registry and vault; everything is written to its journal."""

    def __init__(
        self,
        *,
        task: Task,
        evaluating: EvaluationFactory,
        execute: Execute,
        registry: Registry,
        vault: Vault,
        journal: Journal,
        trust: Trust,
        line: HubAvailability,
        outbox: Outbox,
        cache: BlobCache | None = None,
        verified_only: bool = False,
        knows: CanLoad = can_load_by_name,
        housing: WeightStore | None = None,
    ) -> None:
        """`evaluating` makes the work of evaluating our own model, or a teacher's."""
        self.housing = housing or MemoryWeightStore()
        self._task = task
        self._evaluating = evaluating
        self._execute = execute
        self._knows = knows
        self._registry = registry
        self._vault = vault
        self._journal = journal
        self._trust = trust
        self._line = line
        self._outbox = outbox
        self._cache = cache
        self._verified_only = verified_only
        self._kept: dict[
            Method, dict[str, tuple[TeacherModel, Evaluation]]
        ] = {}  # what the last search of each pulled

    def candidates(self, query: Query) -> list[Knowledge]:
        """Return knowledge of other entities on our task that matches the query and was not refused before."""
        state = self._journal.state
        query = replace(
            query,
            task=self._task.name,
            test_set=self._task.test_set,
            exclude_entity=state.member,
            initial=False,
            standing=Standing.VERIFIED if self._verified_only else query.standing,
            limit=min(MAX_LIMIT, query.limit + len(state.refused)),
        )
        if self._task.test_set is None:  # claims made on several sets cannot be compared
            query = replace(query, min_accuracy=None, classes=(), order="newest")
        # A task of that name and test set may still have other labels.
        page: Sequence[Knowledge] = self._line.ask(lambda: self._registry.discover(query).items, ())
        ours = [one for one in page if self._task.understands(one.task)]
        found = exclude(ours, state.refused)
        now = {one.id: state.seen.get(one.id, state.round) for one in found}
        earlier = {id: first for id, first in state.seen.items() if id not in now}
        self._journal.change(seen=dict([*earlier.items(), *now.items()][-REMEMBERED:]))  # the latest seen are last
        return found

    def has_published(self) -> bool:
        """Whether the registry has something of ours already."""
        member = self._journal.state.member
        assert member is not None
        return self._registry.member(member).sequence > 0

    def initial_checkpoints(self, architecture: Architecture) -> Iterator[Knowledge]:
        """The initial checkpoints of our task for this architecture, that we have not refused; oldest first."""
        query = Query(task=self._task.name, test_set=self._task.test_set, initial=True, order="oldest")
        for one in self._pages(query):
            if one.architecture == architecture and WEIGHTS in one.artifacts:
                yield from exclude([one], self._journal.state.refused)

    def pull(self, knowledge: Knowledge) -> TeacherModel | None:
        """The teacher behind a record, checked; None, logged and remembered, when it is unsound."""
        received = 0
        try:
            form = runnable_kind(knowledge, self._task, self._knows)
            self._trust.check(knowledge)
            artifact = knowledge.artifacts[form]
            data = None if self._cache is None else self._cache.get(artifact.digest)
            if data is None:
                data = self._vault.get(artifact.digest)
                received = len(data)
                if self._cache is not None:
                    self._cache.keep(artifact.digest, data)
            if form == WEIGHTS:
                weights, graph = self.housing.load(artifact.digest, data, knowledge.architecture), None
            else:
                weights, graph = {}, data
            teacher = TeacherModel(
                architecture=knowledge.architecture, weights=weights, graph=graph, task=knowledge.task
            )
        except KnowledgeError as error:
            self.refuse(knowledge, error.message, received)
            return None
        detail = {
            "knowledge": knowledge.id,
            "publisher": knowledge.entity,
            "accuracy": knowledge.evaluation.accuracy,
            "bytes": received,
        }
        self._journal.append("pulled", detail)
        return teacher

    def tested(self, chosen: Sequence[Knowledge], method: Method) -> list[tuple[Candidate, TeacherModel]]:
        """Pull what was chosen and evaluate it on the common test set; what claims more than we find is refused.

        What the last search for this method pulled is neither pulled nor evaluated again.
        """
        earlier = self._kept.get(method, {})
        kept: dict[str, tuple[TeacherModel, Evaluation]] = {}
        for knowledge in chosen:
            if knowledge.id in earlier:
                kept[knowledge.id] = earlier[knowledge.id]
                continue
            teacher = self._line.ask(partial(self.pull, knowledge), None)
            if teacher is None:
                continue
            try:
                found = self.evaluated(teacher.weights, stage="candidate", of=knowledge, teacher=teacher)
            except KnowledgeError as error:  # sound weights can still speak nonsense
                self.refuse(knowledge, error.message, 0)
                continue
            claimed = knowledge.evaluation.accuracy
            if found.test_set == knowledge.task.test_set:
                self._outbox.attest(knowledge.id, found)
            if found.test_set == knowledge.evaluation.test_set and claimed > found.accuracy + TOLERANCE:
                self.refuse(knowledge, f"It claims an accuracy of {claimed:.3f} and has {found.accuracy:.3f}.", 0)
                continue
            kept[knowledge.id] = teacher, found
        self._kept[method] = kept
        by_id = {knowledge.id: knowledge for knowledge in chosen}
        return [(Candidate(knowledge=by_id[id], evaluation=found), teacher) for id, (teacher, found) in kept.items()]

    def evaluated(
        self, weights: Weights, *, stage: str, of: Knowledge | None = None, teacher: TeacherModel | None = None
    ) -> Evaluation:
        """Evaluate a model on what decisions are made on: ours, or a teacher's of someone's knowledge."""
        done: EvaluationResult = self._execute(self._evaluating(weights, teacher))
        evaluation = done.evaluation
        detail = {
            "stage": stage,
            "correct": evaluation.correct,
            "total": evaluation.total,
            "accuracy": evaluation.accuracy,
            "seconds": done.seconds,
        }
        if of is not None:
            detail["knowledge"] = of.id
        self._journal.append("evaluated", detail)
        return evaluation

    def refuse(self, knowledge: Knowledge, reason: str, received: int) -> None:
        """Log why knowledge is unsound, and remember not to ask for it again."""
        self._journal.change(refused=(*self._journal.state.refused, knowledge.id))
        self._journal.append("rejected", {"knowledge": knowledge.id, "reason": reason, "bytes": received})

    def _pages(self, query: Query) -> Iterator[Knowledge]:
        while True:
            page = self._registry.discover(query)
            yield from page.items
            if page.cursor is None:
                return
            query = replace(query, cursor=page.cursor)
