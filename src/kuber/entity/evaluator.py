"""Evaluate an entity's model, and pulled ones, on the data that decisions are made on."""

from typing import Protocol

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Knowledge
from kuber.domain.task import Task
from kuber.entity.state.journal import Journal
from kuber.entity.work.learner import TeacherModel
from kuber.entity.work.steps import EvaluationResult
from kuber.learning.runtime import Runtime
from kuber.learning.weights import Weights


class ModelPort(Protocol):
    """Port of an entity's model, as publications and evaluations use it."""

    @property
    def task(self) -> Task: ...

    @property
    def architecture(self) -> Architecture: ...

    @property
    def proxy_of(self) -> str | None:
        """Name of the architecture of the private network whose proxy the model is; None if it is no proxy."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def class_counts(self) -> tuple[int, ...] | None:
        """Private samples of each class; None if the owner does not state them."""

    @property
    def sample_count(self) -> int | None:
        """Number of private samples; None if the owner does not state it."""

    def evaluate(self, weights: Weights | None, teacher: TeacherModel | None = None) -> EvaluationResult:
        """Evaluate the model with these weights, or a teacher, over the labels of the task.

        None are the current weights, of a model that is held in memory.

        Raises KnowledgeError when a teacher does not fit the task or returns invalid logits.
        """

    def artifacts(self, weights: Weights) -> dict[str, bytes]:
        """Return the artifacts to publish of these weights, by kind."""

    def can_load(self, architecture: Architecture) -> bool:
        """Return whether weights of this architecture can be run here."""


class Evaluator:
    """Evaluates models and logs each result."""

    def __init__(self, model: ModelPort, journal: Journal) -> None:
        self.model = model
        self._journal = journal

    def own(self, weights: Weights | None, *, stage: str) -> Evaluation:
        """Evaluate the entity's model with these weights, or as it is; `stage` says in the log when."""
        return self._log(self.model.evaluate(weights), stage)

    def candidate(self, knowledge: Knowledge, teacher: TeacherModel) -> Evaluation:
        """Evaluate a pulled model. Raises KnowledgeError when it is unsound."""
        return self._log(self.model.evaluate(teacher.weights, teacher), "candidate", knowledge=knowledge.id)

    def _log(self, result: EvaluationResult, stage: str, **more: str) -> Evaluation:
        evaluation = result.evaluation
        detail = {
            "stage": stage,
            "correct": evaluation.correct,
            "total": evaluation.total,
            "accuracy": evaluation.accuracy,
            "seconds": result.seconds,
            **more,
        }
        event = self._journal.append("evaluated", detail)
        since = self._journal.state.evaluated_since
        if self.model.task.test_set is None and (since is None or since[0] != evaluation.test_set):
            self._journal.change(evaluated_since=(evaluation.test_set, event.time.date()))
        return evaluation
