"""The boundary between two phases in a trainer's loop, and the checks of its first batch."""

import logging
from typing import Any

from torch import nn
from torch.optim import Optimizer

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError, first_line
from kuber.learning.batch_check import BatchCheck
from kuber.learning.evaluation import evaluation_mode
from kuber.learning.model_call import Inputs, call_model, logits_from
from kuber.learning.teachers import Teachers

log = logging.getLogger("kuber")


def next_phase(entity: Entity, optimizer: Optimizer, *, first: bool) -> Teachers | None:
    """Call `entity.step`; None, with a warning, when it fails.

    In the first phase a SettingsError is raised; nothing that happens later ends a training.
    """
    try:
        return entity.step(optimizer)
    except Exception as error:
        if first and isinstance(error, SettingsError):
            raise
        log.warning("%s trains on without teachers: %s", entity.name, first_line(error))
        return None


def check_batch(entity: Entity, inputs: Inputs, labels: Any, *, advice: str) -> None:
    """Raise SettingsError, which ends with the advice, unless the entity's model takes the inputs and labels fit.

    The model runs as in an evaluation, so that modes, statistics, gradients and random states stay as they are.
    """
    try:
        logits = logits_from(_output(entity, inputs), classes=entity.task.classes)
        BatchCheck().batch(logits, inputs, labels, classes=entity.task.classes)
    except SettingsError as error:
        raise SettingsError(f"The teachers cannot use a batch: {error.message} {advice}") from None


def _output(entity: Entity, inputs: Inputs) -> Any:
    """Return the model's output for inputs that it may take only with the trainer's autocast."""
    failure: Exception | None = None
    for autocast in (False, True):
        try:
            with evaluation_mode(entity.model, autocast=autocast):
                return call_model(entity.model, inputs)
        except Exception as error:  # noqa: BLE001 - a model may raise anything for inputs that it does not take
            failure = failure or error
    assert failure is not None
    raise SettingsError(
        f"The model of entity {entity.name} does not take the inputs of a batch: {first_line(failure)}."
    ) from None


def check_same(entity: Entity, trained: nn.Module) -> None:
    """Raise SettingsError unless all parameters of the entity's model are among those that are trained."""
    trained_ids = {id(parameter) for parameter in trained.parameters()}
    if not all(id(parameter) in trained_ids for parameter in entity.model.parameters()):
        raise SettingsError(
            f"The model of entity {entity.name} is not the one that is trained; give both the same object."
        )


def check_every(every: int) -> None:
    """Raise SettingsError unless `every` is a valid number of epochs for a phase."""
    if every < 1:
        raise SettingsError(f"A phase needs at least one epoch; every is {every}.")
