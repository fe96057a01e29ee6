"""Work steps: pure, picklable functions of a learner, weights and a generator's state."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.domain.evaluation import Evaluation
from kuber.domain.strategy import Guidance, LocalPhase
from kuber.entity.work.learner import AdjustedTeacher, Learner, PhaseTeacher, TeacherModel
from kuber.errors import KnowledgeError, TimeLimitError
from kuber.learning.ensembling import ensemble_log_probs, guidance_shares, guide_loss
from kuber.learning.evaluation import EVALUATION_BATCH, compute_logits, evaluate
from kuber.learning.losses import balanced_softmax
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.priors import PriorAdjusted
from kuber.learning.training import Loss, Span, Training, linear, proximal, train
from kuber.learning.weights import Weights, weights_of

GRAPH_SECONDS = 0.03  # of processor time that a graph may take for a sample, where that is more than its limits
FORWARD_COST = 1 / 3  # of a forward pass, in samples trained: a backward pass costs two forward passes

Progress = Callable[[float], None]  # called with the finished share of the work, 0 to 1
Execute = Callable[["Work"], Any]  # runs a work step, here or elsewhere, and returns its result


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Result of training or distillation."""

    weights: Weights
    generator: torch.Tensor
    samples: int  # trained on, counted once an epoch
    forward: int  # samples that teachers ran forward
    loss: float  # mean over the last epoch
    seconds: float
    dropped: tuple["DroppedTeacher", ...] = ()


class DroppedTeacher(NamedTuple):
    """A teacher that failed in a local phase, and was left out from then on."""

    place: int  # among the teachers of the phase
    reason: str  # a sentence
    slow: bool  # whether it took too long


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """Result of evaluating a model on a test set."""

    evaluation: Evaluation
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One work step, to be run here or in another process."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    cost: float  # compute: samples trained, and a third of the samples that only run forward

    def do(self, progress: Progress) -> Any:
        """Run the step and return its result; `progress` is called now and then with the finished share."""
        return self.function(**self.arguments, progress=progress)


def training(
    learner: Learner,
    phase: LocalPhase,
    weights: Weights,
    generator: torch.Tensor,
    teachers: tuple[PhaseTeacher, ...] = (),
    span: Span | None = None,
    correction: Weights | None = None,
) -> Work:
    """Return the work of one local phase, with teachers if the phase has guidance.

    The span is where a learning rate that changes stands; without one it is constant. The correction is added to the
    gradient of every step.
    """
    arguments: dict[str, Any] = {"learner": learner, "phase": phase, "weights": weights, "generator": generator}
    if teachers:
        arguments["teachers"] = teachers
    if correction is not None:
        arguments["correction"] = correction
    arguments |= span_arguments(learner.training, span)
    forward = _teacher_samples(learner, phase, teachers)
    cost = learner.training.epochs * len(learner.private) + forward * FORWARD_COST
    return Work(function=train_locally, arguments=arguments, cost=cost)


def distillation(
    learner: Learner, teacher: TeacherModel, weights: Weights, generator: torch.Tensor, span: Span | None = None
) -> Work:
    """Return the work of distilling one teacher; the span is as in `training`."""
    arguments = {"learner": learner, "teacher": teacher, "weights": weights, "generator": generator}
    arguments |= span_arguments(learner.distillation, span)
    samples = len(learner.private)
    return Work(
        function=distil_locally,
        arguments=arguments,
        cost=learner.distillation.epochs * samples + samples * FORWARD_COST,
    )


def common_evaluation(
    learner: Learner,
    weights: Weights,
    teacher: TeacherModel | None = None,
    shift: tuple[float, ...] | None = None,
) -> Work:
    """Return the work of evaluating the entity's model, or a teacher, on the common test set.

    The logits of a teacher get the `shift`.
    """
    # Without private samples the work is the same for all entities, and a cache of results evaluates a model once.
    learner = replace(
        learner, private=learner.common, architecture=teacher.architecture if teacher else learner.architecture
    )
    arguments: dict[str, Any] = {"learner": learner, "weights": weights, "strict": teacher is not None}
    if teacher is not None and teacher.graph is not None:
        arguments["graph"] = teacher.graph
    if shift is not None:
        arguments["shift"] = shift
    return Work(function=evaluate_on_common_set, arguments=arguments, cost=len(learner.common) * FORWARD_COST)


def train_locally(
    learner: Learner,
    phase: LocalPhase,
    weights: Weights,
    generator: torch.Tensor,
    teachers: tuple[PhaseTeacher, ...] = (),
    span: Span | None = None,
    correction: Weights | None = None,
    *,
    progress: Progress,
) -> TrainingResult:
    """Train for one local phase on augmented private data, guided by teachers if there are any."""
    start = time.perf_counter()
    model = learner.model(weights)
    draws = _generator_in(generator)
    loss = _loss(learner, phase)
    epoch: Callable[[], Iterator[tuple[Tensor, ...]]] = partial(learner.training_batches, draws)
    dropped: list[DroppedTeacher] = []
    if teachers and phase.guidance:
        loss = _guided_loss(loss, phase.guidance, _share_by_class(learner, phase.guidance, teachers))
        epoch = _guided_epoch(learner, phase.guidance, teachers, draws, dropped)
    samples = learner.training.epochs * len(learner.private)
    trained = train(
        model,
        epoch,
        settings=learner.training,
        runtime=learner.runtime,
        loss=loss,
        penalty=_penalty(model, phase, correction),
        rate=learner.training.rates(span, samples),
        progress=_share_of(samples, progress),
    )
    return TrainingResult(
        weights=weights_of(model),
        generator=draws.get_state(),
        samples=trained.samples,
        forward=_teacher_samples(learner, phase, teachers),
        loss=trained.loss,
        seconds=time.perf_counter() - start,
        dropped=tuple(dropped),
    )


def distil_locally(
    learner: Learner,
    teacher: TeacherModel,
    weights: Weights,
    generator: torch.Tensor,
    span: Span | None = None,
    *,
    progress: Progress,
) -> TrainingResult:
    """Distil a teacher into the entity's model on unaugmented private data, over which the teacher runs once."""
    start = time.perf_counter()
    model = learner.model(weights)
    draws = _generator_in(generator)
    network = _phase_network(learner, teacher)
    teacher_logits = compute_logits(network, learner.ordered_batches(learner.private), runtime=learner.runtime)
    samples = learner.distillation.epochs * len(learner.private)
    distilled = train(
        model,
        partial(learner.training_batches, draws, teacher_logits, augment=False),
        settings=learner.distillation,
        runtime=learner.runtime,
        loss=learner.distillation.loss,
        rate=learner.distillation.rates(span, samples),
        progress=_share_of(samples, progress),
    )
    return TrainingResult(
        weights=weights_of(model),
        generator=draws.get_state(),
        samples=distilled.samples,
        forward=len(learner.private),
        loss=distilled.loss,
        seconds=time.perf_counter() - start,
    )


def evaluate_on_common_set(
    learner: Learner,
    weights: Weights,
    strict: bool = False,
    graph: bytes | None = None,
    shift: tuple[float, ...] | None = None,
    *,
    progress: Progress,
) -> EvaluationResult:
    """Evaluate weights or an ONNX graph on the common test set.

    Raises CorruptKnowledgeError when `strict` and the logits are not finite.
    """
    start = time.perf_counter()
    model = TeacherModel(architecture=learner.architecture, weights=weights, graph=graph)
    network = learner.teacher_network(model)
    if isinstance(network, OnnxModel):
        network.begin_evaluation(at_least=GRAPH_SECONDS * len(learner.common))
    if shift is not None:
        network = PriorAdjusted(network, learner.runtime.place(torch.tensor(shift)))
    evaluation = evaluate(
        network,
        learner.ordered_batches(learner.common),
        classes=learner.classes,
        test_set=learner.test_set,
        runtime=learner.runtime,
        strict=strict,
    )
    progress(1.0)
    return EvaluationResult(evaluation=evaluation, seconds=time.perf_counter() - start)


def span_arguments(settings: Training, span: Span | None) -> dict[str, Any]:
    """Return the span as an argument where it changes anything: without it, results in caches stay valid."""
    return {} if span is None or settings.schedule == "constant" else {"span": span}


def _loss(learner: Learner, phase: LocalPhase) -> Loss:
    if phase.loss == "balanced-softmax":
        counts = torch.bincount(torch.from_numpy(learner.private.labels), minlength=learner.classes)
        return balanced_softmax(learner.runtime.place(counts))
    return F.cross_entropy


def _penalty(model: nn.Module, phase: LocalPhase, correction: Weights | None) -> Callable[[], Tensor] | None:
    """Return what is added to the loss of each batch: the proximal term, and one whose gradient is the correction."""
    terms = [proximal(model, phase.proximal)] if phase.proximal else []
    if correction is not None:
        terms.append(linear(model, correction))
    return (lambda: torch.stack([term() for term in terms]).sum()) if terms else None


def _share_by_class(learner: Learner, guidance: Guidance, teachers: tuple[PhaseTeacher, ...]) -> Tensor | None:
    """Return the share of its weight that guidance has for each class; None if that is all of it."""
    known = [teacher.advantages for teacher in teachers]
    shares = guidance_shares([each for each in known if each is not None], guidance.advantage)
    return None if shares is None or None in known else learner.runtime.place(torch.tensor(shares))


def _guided_loss(loss: Loss, guidance: Guidance, shares: Tensor | None) -> Loss:
    """Add the teachers' loss to the loss on the labels."""

    def total(student: Tensor, labels: Tensor, teacher_log_probs: Tensor) -> Tensor:
        soft = guide_loss(
            student,
            teacher_log_probs,
            labels,
            temperature=guidance.temperature,
            shares=shares,
            own_class=guidance.own_class,
        )
        return loss(student, labels) + guidance.weight * soft

    return total


def _guided_epoch(
    learner: Learner,
    guidance: Guidance,
    teachers: tuple[PhaseTeacher, ...],
    draws: torch.Generator,
    dropped: list[DroppedTeacher],
) -> Callable[[], Iterator[tuple[Tensor, ...]]]:
    """Return a function that yields an epoch of private data with the log-probabilities of the teachers.

    A teacher that fails, as one whose logits are not finite or which takes too long, is left out from then on, and
    added to `dropped`.
    """
    runtime = learner.runtime
    networks: dict[int, nn.Module] = {}

    def drop(place: int, error: KnowledgeError) -> None:
        networks.pop(place, None)
        dropped.append(DroppedTeacher(place, error.message, isinstance(error, TimeLimitError)))

    for place, teacher in enumerate(teachers):
        try:
            networks[place] = _phase_network(learner, teacher.model)
        except KnowledgeError as error:
            drop(place, error)
    combine = partial(ensemble_log_probs, temperature=guidance.temperature, sharpness=guidance.sharpness)

    def guided(batches: Callable[[], Iterable[tuple[Tensor, ...]]], samples: int) -> Tensor:
        logits, recalls = [], []
        for place, network in list(networks.items()):
            try:
                teacher = teachers[place]
                answers = compute_logits(network, batches(), runtime=runtime)
                if isinstance(teacher, AdjustedTeacher):
                    answers = answers + torch.tensor(teacher.shift, device=answers.device)
                logits.append(answers)
                recalls.append(torch.tensor(teacher.recalls))
            except KnowledgeError as error:
                drop(place, error)
        return combine(logits, recalls=recalls) if logits else torch.full((samples, learner.classes), -torch.inf)

    if not guidance.augmented:
        log_probs = guided(lambda: learner.ordered_batches(learner.private), len(learner.private))
        return partial(learner.training_batches, draws, log_probs)

    def epoch() -> Iterator[tuple[Tensor, ...]]:
        for x, y in learner.training_batches(draws):
            yield x, y, runtime.place(guided(partial(_only, x), len(x)))

    return epoch


def _only(x: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Return batches that are one batch."""
    return [(x,)]


def _phase_network(learner: Learner, teacher: TeacherModel) -> nn.Module:
    """Return a teacher's network for a phase; a graph gets a multiple of the time that samples of zeros take."""
    network = learner.teacher_network(teacher)
    if isinstance(network, OnnxModel):
        network.begin_evaluation()
        network(torch.zeros(EVALUATION_BATCH, *learner.private.shape))
        network.begin_phase()
    return network


def _teacher_samples(learner: Learner, phase: LocalPhase, teachers: tuple[PhaseTeacher, ...]) -> int:
    """Return the number of samples that teachers run forward in a local phase."""
    if phase.guidance is None:
        return 0
    return len(teachers) * len(learner.private) * (learner.training.epochs if phase.guidance.augmented else 1)


def _generator_in(state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def _share_of(samples: int, progress: Progress) -> Callable[[int], None]:
    """Return a function that reports a count of finished samples as the finished share."""
    return lambda done: progress(min(1.0, done / samples))
