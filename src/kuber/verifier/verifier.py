"""Examining what is published, record by record, and telling the registry what was found."""

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
from kuber.verifier.sandboxed_evaluation import EvaluationJob, Limits, run

PAGE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationSet:
    """What claims are measured by: a task, and samples that nobody trained on."""

    task: Task
    samples: Samples  # the common test set, or a secret one of the operator's
    test_set: Digest  # of the samples
    normalisation: Normalisation


class Verifier:
    """Re-evaluates the knowledge of one task, each model in a process of its own."""

    def __init__(self, yardstick: VerificationSet, *, registry: RegistryAdmin, vault: Vault, limits: Limits) -> None:
        """`registry` is asked with the verifier's token."""
        self._yardstick = yardstick
        self._registry = registry
        self._vault = vault
        self._limits = limits

    def examine_pending(self, tell: Callable[[Knowledge, Verification], None] = lambda *_: None) -> int:
        """Examine all that nobody has looked at, oldest first; how many were told of.

        Raises ServiceUnavailableError when registry or vault do not answer; what was told before stays told.
        """
        task = self._yardstick.task
        query = Query(task=task.name, test_set=task.test_set, pending=True, order="newest", limit=PAGE)
        done = 0
        while found := self._registry.discover(query).items:
            for knowledge in reversed(found):
                verification = self.examine(knowledge)
                try:
                    self._registry.verify(knowledge.id, verification)
                except ConflictError:
                    continue  # the operator quarantined it meanwhile; once released it is pending again
                tell(knowledge, verification)
                done += 1
        return done

    def examine(self, knowledge: Knowledge) -> Verification:
        """What the model of this record is worth, whatever it claims."""
        try:
            form = self._form(knowledge)
            data = self._vault.get(knowledge.artifacts[form].digest)
            found = self._as_graph(data) if form == ONNX else self._as_weights(knowledge, data)
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Verification(standing=Standing.QUARANTINED, reason=error.message[:1000])
        except IncompatibleKnowledgeError as error:
            return Verification(standing=Standing.UNVERIFIABLE, reason=error.message[:1000])
        return verdict(knowledge.evaluation, found)

    def _form(self, knowledge: Knowledge) -> str:
        if knowledge.task != self._yardstick.task:
            raise IncompatibleKnowledgeError("The record is for another task of that name.")
        return runnable_kind(knowledge, self._yardstick.task)

    def _as_weights(self, knowledge: Knowledge, data: bytes) -> Evaluation:
        yardstick = self._yardstick
        trial = EvaluationJob(
            architecture=knowledge.architecture,
            weights=data,
            samples=yardstick.samples,
            test_set=yardstick.test_set,
            normalisation=yardstick.normalisation,
            classes=yardstick.task.classes,
        )
        return run(trial, self._limits)

    def _as_graph(self, data: bytes) -> Evaluation:
        yardstick, task, limits = self._yardstick, self._yardstick.task, self._limits
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
                    yardstick.samples, batch_size=EVALUATION_BATCH, normalisation=yardstick.normalisation
                ),
                classes=task.classes,
                test_set=yardstick.test_set,
                runtime=Runtime(device="cpu", precision="float32", threads=1, channels_last=False),
                strict=True,
            )
        finally:
            graph.close()
