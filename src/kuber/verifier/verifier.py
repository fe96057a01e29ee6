"""Verification of published records: each model is evaluated again, and the registry stores the verdict."""

from collections.abc import Callable
from contextlib import closing

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Knowledge
from kuber.domain.ports import RegistryAdmin, Vault
from kuber.domain.query import Query, collect
from kuber.domain.verification import Standing, Verification, verdict
from kuber.errors import ConflictError, CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeNotFoundError
from kuber.learning.compatibility import runnable_kind
from kuber.learning.onnx_model import GraphLimits, OnnxModel
from kuber.learning.runtime import Runtime
from kuber.verifier.sandboxed_evaluation import EvaluationJob, Limits, VerificationSet, evaluate_sandboxed

PAGE = 100


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
        while pending := collect(self._registry.discover, query).items:
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
            if kind == ONNX:
                evaluation = self._evaluate_graph(data)
            else:
                job = EvaluationJob(architecture=knowledge.architecture, weights=data, verification_set=self._set)
                evaluation = evaluate_sandboxed(job, self._limits)
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Verification(standing=Standing.QUARANTINED, reason=error.message[:1000])
        except IncompatibleKnowledgeError as error:
            return Verification(standing=Standing.UNVERIFIABLE, reason=error.message[:1000])
        return verdict(knowledge.evaluation, evaluation)

    def _evaluate_graph(self, data: bytes) -> Evaluation:
        task = self._set.task
        limits = GraphLimits(memory_bytes=self._limits.memory_bytes, seconds=self._limits.seconds)
        graph = OnnxModel(data, input_shape=task.input_shape, classes=task.classes, limits=limits)
        with closing(graph):
            return self._set.evaluate(
                graph, Runtime(device="cpu", precision="float32", threads=1, channels_last=False)
            )
