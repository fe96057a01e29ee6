"""Learners, which hold what every work step of an entity needs, and the models of teachers."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kuber.data.batches import Normalisation, ordered_batches, training_batches
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture
from kuber.domain.task import Task
from kuber.learning.compatibility import check_fits
from kuber.learning.evaluation import EVALUATION_BATCH
from kuber.learning.losses import Distillation
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.runtime import Runtime, build
from kuber.learning.training import Training
from kuber.learning.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """Data, architecture and settings of one entity; picklable, since samples travel as a view on a file."""

    architecture: Architecture
    private: Samples
    common: Samples  # the common test set
    test_set: Digest  # of `common`
    normalisation: Normalisation
    flip: bool  # whether a mirrored image is still of its class
    batch_size: int
    training: Training
    distillation: Distillation
    runtime: Runtime
    classes: int

    def model(self, weights: Weights) -> nn.Module:
        """Return a model of the entity's architecture with these weights, on its device."""
        return build(self.architecture, weights, self.runtime)

    def teacher_network(self, teacher: "TeacherModel") -> nn.Module:
        """Return a teacher's network on the entity's device. Raises KnowledgeError when it does not fit the task."""
        if teacher.graph is not None:
            return OnnxModel(teacher.graph, input_shape=self.private.shape, classes=self.classes)
        network = build(teacher.architecture, teacher.weights, self.runtime)
        if teacher.task is not None:  # of another entity: the network may not fit the task that its record states
            probe = self.runtime.place(torch.zeros(1, *self.private.shape))
            check_fits(network, probe, classes=self.classes)
        return network

    def training_batches(
        self, draws: torch.Generator, targets: Tensor | None = None, *, augment: bool = True
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield one epoch of private data, each sample with its row of `targets` if there are any."""
        batches = training_batches(
            self.private,
            batch_size=self.batch_size,
            normalisation=self.normalisation,
            generator=draws,
            augment=augment,
            flip=self.flip,
            targets=targets,
        )
        return map(self._placed, batches)

    def ordered_batches(self, samples: Samples) -> Iterator[tuple[Tensor, ...]]:
        """Yield samples in order and unaugmented, to run forward."""
        batches = ordered_batches(samples, batch_size=EVALUATION_BATCH, normalisation=self.normalisation)
        return map(self._placed, batches)

    def _placed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.runtime.place(tensor) for tensor in batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherModel:
    """A pulled model, checked against its record."""

    architecture: Architecture
    weights: Weights  # empty if there is a graph
    graph: bytes | None = None  # an ONNX file
    task: Task | None = None  # that it was trained for; None for the entity's own model


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseTeacher:
    """A teacher of a local phase, its recall on each class, and how far that is ahead of the student's."""

    model: TeacherModel
    recalls: tuple[float, ...]
    advantages: tuple[float, ...] | None = None  # None for one that has its full weight, whatever it knows


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjustedTeacher(PhaseTeacher):
    """A teacher whose logits get a shift for each class, which takes out its prior."""

    shift: tuple[float, ...]
