"""The boundary between two phases in a trainer's loop."""

from torch import nn
from torch.optim import Optimizer

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError
from kuber.learning.teachers import Teachers


def next_phase(entity: Entity, trained: nn.Module, optimizer: Optimizer) -> Teachers:
    """Call `entity.step`, but keep the training modes of the modules and the optimizer's learning rates.

    A phase that is undone restores the optimizer's state, but not the learning rates, which the trainer schedules.
    """
    modes = [(module, module.training) for module in trained.modules()]
    rates = [group["lr"] for group in optimizer.param_groups]
    teachers = entity.step(optimizer)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for module, training in modes:
        module.training = training
    return teachers


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
