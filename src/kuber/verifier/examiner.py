"""Examining what is published, record by record, and telling the registry what was found."""

from collections.abc import Callable
from dataclasses import dataclass

from kuber.data.augment import Normalisation
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Architecture, Knowledge
from kuber.domain.ports import Registry, Vault
from kuber.domain.query import Query
from kuber.domain.task import Task
from kuber.domain.verification import Standing, Verification, verdict
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeNotFoundError
from kuber.learning.architectures import describe
from kuber.verifier.trial import Limits, Trial, run

PAGE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """What claims are measured by: a task, and samples that nobody trained on."""

    task: Task
    samples: Samples  # the common test set, or a secret one of the operator's
    test_set: Digest  # of the samples
    normalisation: Normalisation


class Examiner:
    """Re-evaluates the knowledge of one task, each model in a process of its own."""

    def __init__(self, yardstick: Yardstick, *, registry: Registry, vault: Vault, limits: Limits) -> None:
        """`registry` is asked with the verifier's token."""
        self._yardstick = yardstick
        self._registry = registry
        self._vault = vault
        self._limits = limits

    def examine_pending(self, tell: Callable[[Knowledge, Verification], None] = lambda *_: None) -> int:
        """Examine all that nobody has looked at, oldest first; how many those were.

        Raises ServiceUnavailableError when registry or vault do not answer; what was told before stays told.
        """
        task = self._yardstick.task
        query = Query(task=task.name, test_set=task.test_set, pending=True, order="newest", limit=PAGE)
        done = 0
        while found := self._registry.discover(query).items:
            for knowledge in reversed(found):
                verification = self.examine(knowledge)
                self._registry.verify(knowledge.id, verification)
                tell(knowledge, verification)
                done += 1
        return done

    def examine(self, knowledge: Knowledge) -> Verification:
        """What the model of this record is worth, whatever it claims."""
        try:
            architecture = self._known(knowledge)
            data = self._vault.get(knowledge.artifacts[WEIGHTS].digest)
            trial = Trial(
                architecture=architecture,
                weights=data,
                samples=self._yardstick.samples,
                test_set=self._yardstick.test_set,
                normalisation=self._yardstick.normalisation,
                classes=self._yardstick.task.classes,
            )
            found = run(trial, self._limits)
        except (CorruptKnowledgeError, KnowledgeNotFoundError) as error:
            return Verification(standing=Standing.QUARANTINED, reason=error.message[:1000])
        except IncompatibleKnowledgeError as error:
            return Verification(standing=Standing.UNVERIFIABLE, reason=error.message[:1000])
        return verdict(knowledge.evaluation, found)

    def _known(self, knowledge: Knowledge) -> Architecture:
        task, theirs = self._yardstick.task, knowledge.architecture
        if knowledge.task != task:
            raise IncompatibleKnowledgeError("The record is for another task of that name.")
        if WEIGHTS not in knowledge.artifacts:
            raise IncompatibleKnowledgeError("The record names no weights, and no form that could be run instead.")
        ours = describe(theirs.name, {"input_shape": task.input_shape, "classes": task.classes})
        if theirs != ours:
            raise IncompatibleKnowledgeError(f"The architecture {theirs.name!r} is not the one known here.")
        return ours
