"""Models of candidates: pulled, checked and evaluated; refused for good when they are unsound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kuber.domain.digest import Digest
from kuber.domain.knowledge import ONNX, WEIGHTS, Knowledge
from kuber.domain.strategy import Candidate
from kuber.entity.evaluator import Evaluator
from kuber.entity.hub.access import HubAccess
from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.availability import HubAvailability
from kuber.entity.hub.slow_graphs import SlowGraphs
from kuber.entity.hub.teacher_search import TeacherSearch
from kuber.entity.hub.track_records import RefusalCause, TrackRecords
from kuber.entity.hub.trust import Trust
from kuber.entity.state.journal import Journal
from kuber.entity.state.storage import Storage
from kuber.entity.work.learner import TeacherModel
from kuber.errors import KnowledgeError, KnowledgeNotFoundError, KUberError, ServiceError, TimeLimitError
from kuber.learning.compatibility import runnable_kinds

MAX_REFUSED = 1000  # records that are not pulled again

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class PulledCandidate(Candidate):
    """A candidate with its model."""

    model: TeacherModel
    publisher: str | None = None  # name of the entity that published it


class CandidateModels:
    """Pulls the models of candidates, checks and evaluates them, and refuses records that are unsound."""

    def __init__(
        self,
        journal: Journal,
        evaluator: Evaluator,
        hub: HubAccess,
        storage: Storage,
        *,
        availability: HubAvailability,
        trust: Trust,
        alerts: Alerts,
        search: TeacherSearch,
        independent: bool,
    ) -> None:
        """Add refusals to the track records of publishers, and their reasons to the `search`.

        An `independent` entity skips a model that fails in a way that may be ours; others end.
        """
        self._journal = journal
        self._evaluator = evaluator
        self._hub = hub
        self._storage = storage
        self._availability = availability
        self._trust = trust
        self._alerts = alerts
        self.publishers = TrackRecords(journal)
        self._search = search
        self._independent = independent
        self._slow_graphs = SlowGraphs(journal)
        self._names: dict[str, str] = {}  # entity id -> name
        self.graphs_only: set[str] = set()  # records whose weights are not what they claim, but whose graph is
        self.skipped: set[str] = set()  # records that failed here, in this process

    @property
    def refused(self) -> Sequence[str]:
        """Ids of the records that were refused."""
        return self._journal.state.refused

    def use(
        self,
        knowledge: Knowledge,
        function: Callable[[TeacherModel], T],
        *,
        flaw: Callable[[T], str | None] = lambda result: None,
        weights_only: bool = False,
        pulled: TeacherModel | None = None,
    ) -> T | None:
        """Return the result of a function of a record's model: of its weights or, when these fail, of its ONNX graph.

        The weights are those of the `pulled` model, if there is one.

        A model fails when it cannot be pulled, when the function raises KnowledgeError, or when `flaw` finds
        something wrong with the result. When all fail, the record is refused, and None returned. Raises ServiceError
        when the hub does not answer.
        """
        reasons: list[str] = []
        fault = RefusalCause.OTHER  # the gravest
        failure: Exception | None = None  # that may be ours
        uncounted = 0  # bytes received
        try:
            kinds = runnable_kinds(knowledge, self._evaluator.model.task, self._evaluator.model.can_load)
            self._names[knowledge.entity] = self._trust.check(knowledge).name
        except KnowledgeError as error:  # counted too: many names with such records would use up all tries
            self.refuse(knowledge, error.message)
            return None
        if knowledge.id in self.graphs_only and not weights_only:
            kinds = kinds[-1:]
        slow = self._slow_graphs.reason(knowledge)
        for kind in kinds[:1] if weights_only else kinds:
            if kind == ONNX and slow is not None:
                reasons.append(slow)
                continue
            try:
                if pulled is not None and kind == WEIGHTS:
                    model = pulled
                else:
                    data, received = self._blob(knowledge.artifacts[kind].digest)
                    uncounted += received
                    model = self._model(knowledge, kind, data)
                    self._log_pulled(knowledge, kind, uncounted)
                    uncounted = 0
                result = function(model)
            except KnowledgeError as error:
                if isinstance(error, TimeLimitError):
                    self._slow_graphs.add(knowledge)
                reasons.append(error.message)
                if not isinstance(error, KnowledgeNotFoundError):
                    fault = max(fault, RefusalCause.MODEL)
                continue
            except ServiceError:
                raise
            except Exception as error:
                if not self._independent:
                    raise
                failure = error
                continue
            reason = flaw(result)
            if reason is None:
                return result
            reasons.append(reason)
            fault = RefusalCause.CLAIM
        if failure is not None:  # such as no memory left
            self.skipped.add(knowledge.id)
            self._alerts.failed(f"run {self._named(knowledge)}", failure)
        else:
            self.refuse(knowledge, " Its ONNX graph: ".join(reasons), received=uncounted, fault=fault)
        return None

    def pull(self, knowledge: Knowledge) -> TeacherModel | None:
        """Return the checked model of a record; refuse the record and return None when it is unsound."""
        return self.use(knowledge, lambda model: model)

    def evaluate(
        self,
        knowledge: Knowledge,
        *,
        flaw: Callable[[PulledCandidate], str | None] = lambda candidate: None,
        weights_only: bool = False,
        pulled: TeacherModel | None = None,
    ) -> PulledCandidate | None:
        """Pull a record's model and return it with our evaluation; refuse it and return None when it is unsound.

        Weights that were `pulled` before are not pulled again.
        """

        def evaluated(model: TeacherModel) -> PulledCandidate:
            return PulledCandidate(
                knowledge=knowledge,
                evaluation=self._evaluator.candidate(knowledge, model),
                model=model,
                publisher=self._names.get(knowledge.entity),
            )

        return self.use(knowledge, evaluated, flaw=flaw, weights_only=weights_only, pulled=pulled)

    def pull_by_claim(self, knowledge: Knowledge) -> PulledCandidate | None:
        """Pull a record's weights and return them with the claim; refuse it and return None when it is unsound."""

        def claimed(model: TeacherModel) -> PulledCandidate:
            return PulledCandidate(
                knowledge=knowledge,
                evaluation=knowledge.evaluation,
                model=model,
                publisher=self._names.get(knowledge.entity),
                is_claim=True,
            )

        return self.use(knowledge, claimed, weights_only=True)

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

    def refuse(
        self,
        knowledge: Knowledge,
        reason: str,
        *,
        received: int = 0,
        warn: bool = True,
        fault: RefusalCause = RefusalCause.MODEL,
        slow: bool = False,
    ) -> None:
        """Log why a record is refused, and how many bytes of it were received; never pull it again.

        If the fault is its publisher's, that has no place among the candidates for some rounds, more each time. If
        its graph is `slow`, it is not run again in other records either.
        """
        if slow:
            self._slow_graphs.add(knowledge)
        self._journal.change(refused=(*self._journal.state.refused, knowledge.id)[-MAX_REFUSED:])
        self.publishers.add_refusal(knowledge.entity, fault)
        self._search.rejections.append(reason)
        detail = {"knowledge": knowledge.id, "reason": reason, "bytes": received}
        self._journal.append("rejected", detail)
        if warn:
            self._alerts.warn(f"{self._named(knowledge).capitalize()} is rejected. {reason}")

    def _named(self, knowledge: Knowledge) -> str:
        publisher = self._names.get(knowledge.entity)
        return f"knowledge {knowledge.id}" + ("" if publisher is None else f" of entity {publisher!r}")

    def _blob(self, digest: Digest) -> tuple[bytes, int]:
        """Return a blob, from the cache or the vault, and the number of bytes received."""
        cache = self._storage.cache
        data = None if cache is None else cache.get(digest)
        if data is not None:
            return data, 0
        with self._availability.using("vault"):
            data = self._hub.vault.get(digest)
        if cache is not None:
            try:
                cache.keep(digest, data)
            except KUberError as error:  # such as no space left: it is pulled again
                self._alerts.failed("cache a pulled model", error)
        return data, len(data)

    def _model(self, knowledge: Knowledge, kind: str, data: bytes) -> TeacherModel:
        digest, weights = knowledge.artifacts[kind].digest, self._storage.weights
        return TeacherModel(
            architecture=knowledge.architecture,
            weights=weights.load(digest, data, knowledge.architecture) if kind == WEIGHTS else {},
            graph=None if kind == WEIGHTS else data,
            task=knowledge.task,
        )

    def _log_pulled(self, knowledge: Knowledge, kind: str, received: int) -> None:
        detail = {
            "knowledge": knowledge.id,
            "publisher": knowledge.entity,
            "accuracy": knowledge.evaluation.accuracy,
            "bytes": received,
            "artifact": kind,
        }
        self._journal.append("pulled", detail)
