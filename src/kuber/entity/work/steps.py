"""The work steps: pure, picklable functions of a learner, weights and a generator's state."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kuber.domain.evaluation import Evaluation
from kuber.domain.strategy import Guidance, LocalPhase
from kuber.entity.work.learner import Guide, Learner, TeacherModel
from kuber.learning.ensembling import ensemble_log_probs, guide_loss
from kuber.learning.evaluation import compute_logits, evaluate
from kuber.learning.losses import balanced_softmax
from kuber.learning.training import Loss, proximal, train
from kuber.learning.weights import Weights, weights_of

FORWARD_COST = 1 / 3  # of a sample that only runs forward, in samples trained: a backward pass costs two forward ones

Progress = Callable[[float], None]  # takes the finished share of the work, 0 to 1
Execute = Callable[["Work"], Any]  # does a work step, here or elsewhere, and returns its result


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What training or distillation gives back."""

    weights: Weights
    generator: torch.Tensor
    samples: int  # that a gradient step was taken on, counted once an epoch
    forward: int  # that only ran forward
    loss: float  # mean over the last epoch
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """What running a model over a test set gives back."""

    evaluation: Evaluation
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One work step, ready to be done here or in another process."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    cost: float  # compute: samples trained and a third of the samples that only run forward

    def do(self, progress: Progress) -> Any:
        """Do it; `progress` is told the finished share now and then."""
        return self.function(**self.arguments, progress=progress)


def training(
    learner: Learner,
    phase: LocalPhase,
    weights: Weights,
    generator: torch.Tensor,
    guides: tuple[Guide, ...] = (),
) -> Work:
    """The work of one local phase; guides speak as the phase tells them to."""
    arguments: dict[str, Any] = {"learner": learner, "phase": phase, "weights": weights, "generator": generator}
    if guides:
        arguments["guides"] = guides
    forward = _heard(learner, phase, guides)
    cost = learner.training.epochs * len(learner.private) + forward * FORWARD_COST
    return Work(function=train_locally, arguments=arguments, cost=cost)


def distillation(learner: Learner, teacher: TeacherModel, weights: Weights, generator: torch.Tensor) -> Work:
    """The work of distilling one teacher."""
    arguments = {"learner": learner, "teacher": teacher, "weights": weights, "generator": generator}
    samples = len(learner.private)
    return Work(
        function=distil_locally,
        arguments=arguments,
        cost=learner.distillation.epochs * samples + samples * FORWARD_COST,
    )


def common_evaluation(learner: Learner, weights: Weights, teacher: TeacherModel | None = None) -> Work:
    """The work of one evaluation on the common test set: of our model, or of a teacher's."""
    # Private samples have no part in it: whoever remembers results evaluates a model once for all entities.
    learner = replace(
        learner, private=learner.common, architecture=teacher.architecture if teacher else learner.architecture
    )
    arguments: dict[str, Any] = {"learner": learner, "weights": weights, "strict": teacher is not None}
    if teacher is not None and teacher.graph is not None:
        arguments["graph"] = teacher.graph
    return Work(function=evaluate_commonly, arguments=arguments, cost=len(learner.common) * FORWARD_COST)


def train_locally(
    learner: Learner,
    phase: LocalPhase,
    weights: Weights,
    generator: torch.Tensor,
    guides: tuple[Guide, ...] = (),
    *,
    progress: Progress,
) -> TrainingResult:
    """The local phase: the entity's epochs on its augmented private data, while its guides speak."""
    start = time.perf_counter()
    model = learner.model(weights)
    draws = _generator_in(generator)
    loss = _loss(learner, phase)
    epoch: Callable[[], Iterator[tuple[Tensor, ...]]] = partial(learner.training_batches, draws)
    if guides and phase.guidance:
        loss = _guided(loss, phase.guidance)
        epoch = _guided_epoch(learner, phase.guidance, guides, draws)
    trained = train(
        model,
        epoch,
        settings=learner.training,
        runtime=learner.runtime,
        loss=loss,
        penalty=proximal(model, phase.proximal) if phase.proximal else None,
        progress=_share_of(learner.training.epochs * len(learner.private), progress),
    )
    return TrainingResult(
        weights=weights_of(model),
        generator=draws.get_state(),
        samples=trained.samples,
        forward=_heard(learner, phase, guides),
        loss=trained.loss,
        seconds=time.perf_counter() - start,
    )


def distil_locally(
    learner: Learner, teacher: TeacherModel, weights: Weights, generator: torch.Tensor, *, progress: Progress
) -> TrainingResult:
    """Distil a teacher into the local model on unaugmented private data; the teacher runs over it once."""
    start = time.perf_counter()
    model = learner.model(weights)
    draws = _generator_in(generator)
    speaker = learner.speaker(teacher)
    spoken = compute_logits(speaker, learner.ordered_batches(learner.private), runtime=learner.runtime)
    distilled = train(
        model,
        partial(learner.training_batches, draws, spoken, augment=False),
        settings=learner.distillation,
        runtime=learner.runtime,
        loss=learner.distillation.loss,
        progress=_share_of(learner.distillation.epochs * len(learner.private), progress),
    )
    return TrainingResult(
        weights=weights_of(model),
        generator=draws.get_state(),
        samples=distilled.samples,
        forward=len(learner.private),
        loss=distilled.loss,
        seconds=time.perf_counter() - start,
    )


def evaluate_commonly(
    learner: Learner, weights: Weights, strict: bool = False, graph: bytes | None = None, *, progress: Progress
) -> EvaluationResult:
    """The evaluation on the common test set, of weights or of a graph; `strict` refuses one that answers nonsense."""
    start = time.perf_counter()
    speaker = TeacherModel(architecture=learner.architecture, weights=weights, graph=graph)
    evaluation = evaluate(
        learner.speaker(speaker),
        learner.ordered_batches(learner.common),
        classes=learner.classes,
        test_set=learner.test_set,
        runtime=learner.runtime,
        strict=strict,
    )
    progress(1.0)
    return EvaluationResult(evaluation=evaluation, seconds=time.perf_counter() - start)


def _loss(learner: Learner, phase: LocalPhase) -> Loss:
    if phase.loss == "balanced-softmax":
        counts = torch.bincount(torch.from_numpy(learner.private.labels), minlength=learner.classes)
        return balanced_softmax(learner.runtime.place(counts))
    return F.cross_entropy


def _guided(loss: Loss, guidance: Guidance) -> Loss:
    """The loss on the labels, and what the guides say about the other classes."""

    def both(student: Tensor, labels: Tensor, spoken: Tensor) -> Tensor:
        soft = guide_loss(student, spoken, labels, temperature=guidance.temperature)
        return loss(student, labels) + guidance.weight * soft

    return both


def _guided_epoch(
    learner: Learner, guidance: Guidance, guides: tuple[Guide, ...], draws: torch.Generator
) -> Callable[[], Iterator[tuple[Tensor, ...]]]:
    """Makes epochs of private data with what the guides say; CorruptKnowledgeError when one speaks nonsense."""
    runtime = learner.runtime
    models = [learner.speaker(guide.teacher) for guide in guides]
    recalls = [torch.tensor(guide.recalls) for guide in guides]
    told = {"temperature": guidance.temperature, "sharpness": guidance.sharpness}
    if not guidance.augmented:
        spoken = [
            compute_logits(model, learner.ordered_batches(learner.private), runtime=runtime) for model in models
        ]
        return partial(learner.training_batches, draws, ensemble_log_probs(spoken, recalls, **told))

    def epoch() -> Iterator[tuple[Tensor, ...]]:
        for x, y in learner.training_batches(draws):
            spoken = [compute_logits(model, [(x,)], runtime=runtime) for model in models]
            yield x, y, runtime.place(ensemble_log_probs(spoken, recalls, **told))

    return epoch


def _heard(learner: Learner, phase: LocalPhase, guides: tuple[Guide, ...]) -> int:
    """How many samples guides run forward over in a local phase."""
    if phase.guidance is None:
        return 0
    return len(guides) * len(learner.private) * (learner.training.epochs if phase.guidance.augmented else 1)


def _generator_in(state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def _share_of(samples: int, progress: Progress) -> Callable[[int], None]:
    """Turns a count of finished samples into the finished share."""
    return lambda done: progress(min(1.0, done / samples))
