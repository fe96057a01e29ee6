"""Verification of published records: each model is evaluated again, and the registry stores the verdict."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Protocol

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Knowledge
from kuber.domain.ports import RegistryAdmin, Vault
from kuber.domain.printable_text import printable
from kuber.domain.query import Query, all_pages
from kuber.domain.task import Task
from kuber.domain.verification import Standing, Verification, verdict
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    KnowledgeNotFoundError,
    KUberError,
    NotAuthorizedError,
    ServiceUnavailableError,
    TimeLimitError,
    first_line,
)
from kuber.learning.compatibility import runnable_kind
from kuber.learning.onnx_model import GraphLimits, OnnxModel
from kuber.learning.runtime import Runtime
from kuber.verifier.sandboxed_evaluation import EvaluationJob, Limits, VerificationSet, evaluate_sandboxed

PAGE = 100
MAX_LISTED = 1000  # pending records that are looked at for tasks without samples
MAX_UNANSWERED = 3  # times that the hub does not answer about a record, after which it is left alone
LEAST_CPU_SECONDS = 5  # for a record of a publisher whose records took too long

log = logging.getLogger("kuber")
Report = Callable[[Knowledge, Verification], None]


class VerificationSource(Protocol):
    """Source of the samples for the records on tasks of one name."""

    @property
    def task_name(self) -> str: ...

    @property
    def task_test_set(self) -> Digest | None:
        """Common test set of the records to verify; None for any."""

    def for_task(self, task: Task) -> VerificationSet:
        """Return the samples for records on this task. Raises IncompatibleKnowledgeError when they do not fit it."""


class Verifier:
    """Verifies the knowledge of some tasks, with each model in a process of its own.

    Nothing about one record keeps it from the others: a failure is a verdict, or is logged, and the record is left
    alone until the next start.
    """

    def __init__(self, *sources: VerificationSource, registry: RegistryAdmin, vault: Vault, limits: Limits) -> None:
        """Verify on samples of these sources; `registry` must have a verifier's token."""
        self._sources = sources
        self._registry = registry
        self._vault = vault
        self._limits = limits
        self._left_alone: set[str] = set()  # ids of records that failed in a way that is not a verdict
        self._unanswered: Counter[str] = Counter()  # by id of a record: times that the hub did not answer
        self._slow: dict[Digest, str] = {}  # graphs that took too long, and the verdict's reason
        self._strikes: Counter[str] = Counter()  # by publisher: records that took too long

    def verify_pending(self, report: Report = lambda *_: None) -> int:
        """Verify all pending records, oldest first; return how many, and call `report` with each.

        Those of publishers whose records took too long come last. Raises ServiceUnavailableError when registry or
        vault do not answer; verdicts sent before then are stored.
        """
        done, seen = 0, set(self._left_alone)
        for source in self._sources:
            while pending := self._pending(source, seen):
                for knowledge in pending:
                    seen.add(knowledge.id)
                    verification = self._send(knowledge)
                    if verification is not None:
                        report(knowledge, verification)
                        done += 1
        return done

    def tasks_without_samples(self) -> dict[str, int]:
        """Return the tasks that no source has samples for, and how many of the newest 1,000 records are on each."""
        records = self._records(Query(pending=True, order="newest", limit=PAGE))
        waiting = (record.task for record in islice(records, MAX_LISTED))
        return dict(Counter(task.name for task in waiting if self._source_for(task) is None))

    def verify(self, knowledge: Knowledge) -> Verification:
        """Evaluate the model of this record and return the verdict on its claim."""
        try:
            source = self._source_for(knowledge.task)
            if source is None:
                raise IncompatibleKnowledgeError("The hub has no samples for this task.")
            verification_set = source.for_task(knowledge.task)
            kind = runnable_kind(knowledge, knowledge.task)
            digest = knowledge.artifacts[kind].digest
            if digest in self._slow:
                raise IncompatibleKnowledgeError(self._slow[digest])
            data, limits = self._vault.get(digest), self._limits_for(knowledge.entity)
            try:
                if kind == ONNX:
                    evaluation = _evaluate_graph(data, verification_set, limits)
                else:
                    job = EvaluationJob(
                        architecture=knowledge.architecture, weights=data, verification_set=verification_set
                    )
                    evaluation = evaluate_sandboxed(job, limits)
            except TimeLimitError as error:
                self._strikes[knowledge.entity] += 1
                if kind == ONNX:
                    self._slow[digest] = error.message
                raise
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Verification(standing=Standing.QUARANTINED, reason=printable(error.message)[:1000])
        except IncompatibleKnowledgeError as error:
            return Verification(standing=Standing.UNVERIFIABLE, reason=printable(error.message)[:1000])
        return verdict(knowledge.evaluation, evaluation)

    def _source_for(self, task: Task) -> VerificationSource | None:
        """Return the source for a task, rather one for its common test set than one for any."""
        fitting = [
            source
            for source in self._sources
            if source.task_name == task.name and source.task_test_set in (None, task.test_set)
        ]
        return min(fitting, key=lambda source: source.task_test_set is None, default=None)

    def _pending(self, source: VerificationSource, seen: set[str]) -> list[Knowledge]:
        """Return some pending records that are not among the seen, in the order in which to verify them."""
        query = Query(task=source.task_name, test_set=source.task_test_set, pending=True, order="newest", limit=PAGE)
        unseen = (record for record in self._records(query) if record.id not in seen)
        oldest_first = reversed(list(islice(unseen, PAGE)))
        return sorted(oldest_first, key=lambda record: (self._strikes[record.entity], self._unanswered[record.id]))

    def _records(self, query: Query) -> Iterator[Knowledge]:
        return all_pages(lambda cursor: self._registry.discover(replace(query, cursor=cursor)))

    def _send(self, knowledge: Knowledge) -> Verification | None:
        """Verify a record and store the verdict; None if there is none, or it could not be stored."""
        try:
            verification = self.verify(knowledge)
            return self._store(knowledge, verification)
        except NotAuthorizedError:
            raise
        except ServiceUnavailableError as error:
            self._unanswered[knowledge.id] += 1
            if self._unanswered[knowledge.id] < MAX_UNANSWERED:
                raise
            self._leave_alone(knowledge, error.message)
        except Exception as error:  # noqa: BLE001 - nothing about one record may keep the verifier from the others
            self._leave_alone(knowledge, f"{type(error).__name__}: {first_line(error)}.")
        return None

    def _store(self, knowledge: Knowledge, verification: Verification) -> Verification | None:
        try:
            self._registry.verify(knowledge.id, verification)
        except (ConflictError, KnowledgeNotFoundError):
            return None  # quarantined by the operator, and pending again once released; or gone
        except (ServiceUnavailableError, NotAuthorizedError):
            raise
        except KUberError as error:
            log.warning("The registry refuses the verdict on %s: %s", knowledge.id, printable(error.message))
            verification = Verification(
                standing=Standing.UNVERIFIABLE, reason="The registry refused the verdict on this record."
            )
            self._registry.verify(knowledge.id, verification)
        return verification

    def _leave_alone(self, knowledge: Knowledge, reason: str) -> None:
        self._left_alone.add(knowledge.id)
        log.warning(
            "The record %s is not verified, and not tried again before the verifier is restarted. %s",
            printable(knowledge.id),
            printable(reason),
        )

    def _limits_for(self, publisher: str) -> Limits:
        """Return the limits for a record: half for each record of its publisher that took too long."""
        share = 0.5 ** min(self._strikes[publisher], 20)
        cpu_seconds = min(self._limits.cpu_seconds, max(LEAST_CPU_SECONDS, int(self._limits.cpu_seconds * share)))
        seconds = min(self._limits.seconds, max(2.0 * LEAST_CPU_SECONDS, self._limits.seconds * share))
        return replace(self._limits, cpu_seconds=cpu_seconds, seconds=seconds)


def _evaluate_graph(data: bytes, verification_set: VerificationSet, limits: Limits) -> Evaluation:
    task, defaults = verification_set.task, GraphLimits()
    graph_limits = GraphLimits(
        memory_bytes=limits.memory_bytes,
        load_seconds=min(defaults.load_seconds, limits.seconds),
        seconds=limits.seconds,
        evaluation_seconds=limits.cpu_seconds,
        evaluation_wall_seconds=limits.seconds,
    )
    graph = OnnxModel(data, input_shape=task.input_shape, classes=task.classes, limits=graph_limits)
    with closing(graph):
        graph.begin_evaluation()
        runtime = Runtime(device="cpu", precision="float32", threads=1, channels_last=False)
        return verification_set.evaluate(graph, runtime)
