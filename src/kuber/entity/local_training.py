"""Training of `Entity.fit`: a plain loop over an owner's batches, with the teachers' loss beside the strategy's."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kuber.domain.strategy import Guidance, LocalPhase
from kuber.domain.task import Task
from kuber.entity.control import Control
from kuber.entity.state.optimizer_copy import optimizers_in
from kuber.errors import SettingsError, first_line
from kuber.learning.evaluation import training_mode
from kuber.learning.labels import uniform_labels
from kuber.learning.losses import balanced_softmax
from kuber.learning.model_call import Inputs, batch_size, call_model, logits_from
from kuber.learning.teachers import Teachers
from kuber.learning.training import Loss

log = logging.getLogger("kuber")

ONLY_ONCE = "batches can be iterated only once; give a list or a DataLoader."
NO_STEP = "batches has no batch; a phase needs at least one (does drop_last leave none?)."


def check_batches(batches: Any) -> Iterable[Any]:
    """Return the batches. Raises SettingsError naming `batches` unless they can be iterated again and again."""
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise SettingsError(f"batches is a {type(batches).__name__}; give a list or a DataLoader.")
    if hasattr(batches, "__next__"):  # not `iter(batches)`, with which a DataLoader draws a random number
        raise SettingsError(ONLY_ONCE)
    made: Iterable[Any] = batches
    return made


def check_trains(optimizer: Any, model: nn.Module) -> None:
    """Raise SettingsError naming `optimizer` unless it trains a parameter of the model."""
    own = {id(parameter) for parameter in model.parameters()}
    groups = [group for each in optimizers_in(optimizer) for group in each.param_groups]
    if not any(id(parameter) in own for group in groups for parameter in group["params"]):
        raise SettingsError("optimizer has no parameter of the model; make it of model.parameters().")


class LocalTraining:
    """Trains the owner's model on batches, epoch by epoch."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        batches: Any,
        *,
        phase: LocalPhase,
        optimizer: Any,
        split: Callable[[Any], tuple[Any, Tensor]],
    ) -> None:
        """Check what the owner passed in; `split` returns inputs and labels of a batch. Raises SettingsError."""
        self.model = model
        self._task = task
        self._batches = check_batches(batches)
        self._split = split
        if next(model.parameters(), None) is None:
            raise SettingsError("model has no parameters to train; fit it yourself, and call entity.replace.")
        if optimizer is None:
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        check_trains(optimizer, model)
        self.optimizer = optimizer
        given = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
        self._steppers = [each if hasattr(each, "zero_grad") else optimizers_in(each)[0] for each in given]
        self._guidance = phase.guidance or Guidance()
        self._had_batches = False
        self.twin: Control | None = None  # trains on the same batches, without teachers
        self._loss: Loss = nn.functional.cross_entropy
        self.prior = phase.prior  # that the logits carry
        self.class_totals: list[float] | None = None  # where the loss needs them
        if phase.loss == "balanced-softmax":
            totals = self._class_totals()
            self.class_totals = totals.tolist()
            self._loss = balanced_softmax(totals.to(next(model.parameters()).device))

    def train(self, teachers: Teachers, *, epochs: int) -> None:
        """Train for some epochs. Raises SettingsError when an epoch has no batch."""
        with training_mode(self.model):
            for _ in range(epochs):
                steps = 0
                for inputs, labels in self._pairs():
                    self._step(inputs, labels, teachers)
                    steps += 1
                if not steps:
                    raise SettingsError(ONLY_ONCE if self._had_batches else NO_STEP)
                self._had_batches = True

    def _step(self, inputs: Any, labels: Tensor, teachers: Teachers) -> None:
        if self.twin is not None:
            self._train_twin(self.twin, inputs, labels)

        def loss() -> Tensor:
            total = self._total(self.model, inputs, labels, teachers)
            for optimizer in self._steppers:
                optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        first = self._steppers[0]
        if isinstance(first, torch.optim.LBFGS):
            first.step(loss)  # type: ignore[no-untyped-call]  # it evaluates the loss several times
            return
        loss()
        for optimizer in self._steppers:
            optimizer.step()

    def _train_twin(self, twin: Control, inputs: Any, labels: Tensor) -> None:
        """Train the twin; when it fails the owner's training continues without it."""
        try:
            twin.step(lambda model: self._total(model, inputs, labels, None))
        except Exception as error:  # noqa: BLE001 - the owner's forward may raise anything
            self.twin = None
            log.warning("The copy that trains without teachers fails, and is given up: %s", first_line(error))

    def _total(self, model: nn.Module, inputs: Any, labels: Tensor, teachers: Teachers | None) -> Tensor:
        output = call_model(model, inputs)
        logits = logits_from(output, classes=self._task.classes, samples=batch_size(inputs))
        if labels.shape != logits.shape:  # probabilities stay as they are
            labels = _uniform(labels, inputs, self._task.classes)
        try:
            total = self._loss(logits, labels)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            shape = tuple(logits.shape)
            raise SettingsError(
                f"Labels of batches do not fit logits of shape {shape}: {first_line(error)}."
            ) from None
        if teachers:
            total = total + self._guidance.weight * teachers.loss(logits, inputs, labels)
        return total

    def _pairs(self) -> Iterator[tuple[Any, Tensor]]:
        for batch in self._batches:
            yield self._split(batch)

    def _class_totals(self) -> Tensor:
        """Return the number of samples of each class; soft labels count in parts, and negative ones not at all."""
        totals = torch.zeros(self._task.classes, dtype=torch.float64)
        for inputs, labels in self._pairs():
            labels = _uniform(labels, inputs, self._task.classes).cpu()
            if labels.is_floating_point():
                totals += labels.double().sum(0)
                continue
            labels = labels[labels >= 0]
            if len(labels) and int(labels.max()) >= self._task.classes:
                raise SettingsError(f"Labels of batches must be from 0 to {self._task.classes - 1}.")
            totals += torch.bincount(labels, minlength=self._task.classes)
        if not totals.sum() > 0:
            raise SettingsError(NO_STEP)
        self._had_batches = True
        return totals


def _uniform(labels: Tensor, inputs: Inputs, classes: int) -> Tensor:
    """Return `uniform_labels` of a batch. Raises SettingsError naming `batches`."""
    try:
        return uniform_labels(labels, samples=batch_size(inputs), classes=classes)
    except SettingsError as error:
        raise SettingsError(f"The labels of batches do not fit: {error.message}") from None
