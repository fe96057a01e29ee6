"""Verification of published records: each model is evaluated again, and the registry stores the verdict."""

from collections.abc import Callable
from dataclasses import dataclass

from kuber.data.batches import Normalisation, ordered_batches
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Knowledge
from kuber.domain.ports import RegistryAdmin, Vault
from kuber.domain.query import Query
from kuber.domain.task import Task
from kuber.domain.verification import Standing, Verification, verdict
from kuber.errors import ConflictError, CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeNotFoundError
from kuber.learning.compatibility import runnable_kind
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.onnx_model import GraphLimits, OnnxModel
from kuber.learning.runtime import Runtime
from kuber.verifier.sandboxed_evaluation import EvaluationJob, Limits, evaluate_sandboxed

PAGE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationSet:
    """The task and the samples that claims are verified on; no entity trains on these samples."""

    task: Task
    samples: Samples  # the common test set, or a secret one of the operator
    test_set: Digest  # of the samples
    normalisation: Normalisation


class Verifier:
    """Verifies the knowledge of one task, with each model in a process of its own."""

    def __init__(
        self, verification_set: VerificationSet, *, registry: RegistryAdmin, vault: Vault, limits: Limits
    ) -> None:
        """Verify on `verification_set`; `registry` must have a verifier's token."""
        self._set = verification_set
        self._registry = registry
        self._vault = vault
        self._limits = limits

    def verify_pending(self, report: Callable[[Knowledge, Verification], None] = lambda *_: None) -> int:
        """Verify all pending records, oldest first; return how many, and call `report` with each.

        Raises ServiceUnavailableError when registry or vault do not answer; verdicts sent before then are stored.
        """
        task = self._set.task
        query = Query(task=task.name, test_set=task.test_set, pending=True, order="newest", limit=PAGE)
        done = 0
        while pending := self._registry.discover(query).items:
            for knowledge in reversed(pending):
                verification = self.verify(knowledge)
                try:
                    self._registry.verify(knowledge.id, verification)
                except ConflictError:
                    continue  # the operator has quarantined it; once released it is pending again
                report(knowledge, verification)
                done += 1
        return done

    def verify(self, knowledge: Knowledge) -> Verification:
        """Evaluate the model of this record and return the verdict on its claim."""
        try:
            if knowledge.task != self._set.task:
                raise IncompatibleKnowledgeError("The record is for another task of that name.")
            kind = runnable_kind(knowledge, self._set.task)
            data = self._vault.get(knowledge.artifacts[kind].digest)
            evaluation = self._evaluate_graph(data) if kind == ONNX else self._evaluate_weights(knowledge, data)
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Verification(standing=Standing.QUARANTINED, reason=error.message[:1000])
        except IncompatibleKnowledgeError as error:
            return Verification(standing=Standing.UNVERIFIABLE, reason=error.message[:1000])
        return verdict(knowledge.evaluation, evaluation)

    def _evaluate_weights(self, knowledge: Knowledge, data: bytes) -> Evaluation:
        job = EvaluationJob(
            architecture=knowledge.architecture,
            weights=data,
            samples=self._set.samples,
            test_set=self._set.test_set,
            normalisation=self._set.normalisation,
            classes=self._set.task.classes,
        )
        return evaluate_sandboxed(job, self._limits)

    def _evaluate_graph(self, data: bytes) -> Evaluation:
        task, limits = self._set.task, self._limits
        graph = OnnxModel(
            data,
            input_shape=task.input_shape,
            classes=task.classes,
            limits=GraphLimits(memory_bytes=limits.memory_bytes, seconds=limits.seconds),
        )
        try:
            return evaluate(
                graph,
                ordered_batches(
                    self._set.samples, batch_size=EVALUATION_BATCH, normalisation=self._set.normalisation
                ),
                classes=task.classes,
                test_set=self._set.test_set,
                runtime=Runtime(device="cpu", precision="float32", threads=1, channels_last=False),
                strict=True,
            )
        finally:
            graph.close()
