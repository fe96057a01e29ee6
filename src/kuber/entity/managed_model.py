"""The model of an entity that KUber trains: its work steps, as the loop calls them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture
from kuber.domain.prior import Frequencies
from kuber.domain.strategy import LocalPhase
from kuber.domain.task import Task
from kuber.entity.work.average import AverageResult, average_evaluation
from kuber.entity.work.learner import Learner, PhaseTeacher, TeacherModel
from kuber.entity.work.pair import PairResult, pair_share
from kuber.entity.work.personal import PersonalResult, personal_model
from kuber.entity.work.steps import (
    EvaluationResult,
    Execute,
    TrainingResult,
    common_evaluation,
    distillation,
    training,
)
from kuber.learning.compatibility import can_load_by_name
from kuber.learning.runtime import Runtime
from kuber.learning.training import Span
from kuber.learning.weights import Weights, dump

Artifacts = Callable[[Weights], dict[str, bytes]]  # weights to publish -> artifacts by kind


def weights_only(weights: Weights) -> dict[str, bytes]:
    """Return the artifacts of weights as safetensors."""
    return {WEIGHTS: dump(weights)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagedModel:
    """The `ModelPort` of a model that KUber trains; `execute` runs its work steps, here or elsewhere."""

    task: Task
    learner: Learner
    class_counts: tuple[int, ...]
    execute: Execute
    make_artifacts: Artifacts = weights_only
    proxy_of: str | None = None  # architecture of the private network whose proxy this is
    execute_beside: Execute | None = None  # runs work that delays no round; None: as `execute` does

    @property
    def architecture(self) -> Architecture:
        return self.learner.architecture

    @property
    def runtime(self) -> Runtime:
        return self.learner.runtime

    @property
    def sample_count(self) -> int:
        return len(self.learner.private)

    def train(
        self,
        phase: LocalPhase,
        weights: Weights,
        generator: torch.Tensor,
        teachers: tuple[PhaseTeacher, ...],
        span: Span | None = None,
    ) -> TrainingResult:
        """Train for a local phase. Raises KnowledgeError when a teacher is unsound."""
        result: TrainingResult = self.execute(training(self.learner, phase, weights, generator, teachers, span))
        return result

    def distil(
        self, teacher: TeacherModel, weights: Weights, generator: torch.Tensor, span: Span | None = None
    ) -> TrainingResult:
        """Distil a teacher in epochs of its own. Raises KnowledgeError when it is unsound."""
        result: TrainingResult = self.execute(distillation(self.learner, teacher, weights, generator, span))
        return result

    def evaluate(self, weights: Weights | None, teacher: TeacherModel | None = None) -> EvaluationResult:
        assert weights is not None, "no model is held between the steps"
        result: EvaluationResult = self.execute(common_evaluation(self.learner, weights, teacher))
        return result

    def evaluate_shifted(self, teacher: TeacherModel, shift: tuple[float, ...]) -> Evaluation:
        """Evaluate a teacher whose logits get a shift for each class."""
        result: EvaluationResult = self.execute(common_evaluation(self.learner, teacher.weights, teacher, shift))
        return result.evaluation

    def average(self, models: tuple[Weights, ...]) -> AverageResult:
        """Average the models and evaluate the average; it takes no time of the entity's rounds."""
        result: AverageResult = (self.execute_beside or self.execute)(average_evaluation(self.learner, models))
        return result

    def personalise(self, weights: Weights, carried: Frequencies) -> PersonalResult:
        """Give a model a personal head, where that is better; it takes no time of the entity's rounds."""
        work = personal_model(self.learner, weights, carried=carried, class_counts=self.class_counts)
        result: PersonalResult = (self.execute_beside or self.execute)(work)
        return result

    def share(
        self, weights: Weights, private: "ManagedModel", private_weights: Weights, carried: Frequencies
    ) -> PairResult:
        """Choose the share of this model, a proxy, beside a private network; it takes no time of the rounds."""
        pair = (self.learner, weights), (private.learner, private_weights)
        work = pair_share(*pair, carried=carried, class_counts=self.class_counts)
        result: PairResult = (self.execute_beside or self.execute)(work)
        return result

    def artifacts(self, weights: Weights) -> dict[str, bytes]:
        return self.make_artifacts(weights)

    def can_load(self, architecture: Architecture) -> bool:
        return can_load_by_name(architecture)
