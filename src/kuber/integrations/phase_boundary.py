"""The border between two phases of someone else's training loop."""

from torch import nn
from torch.optim import Optimizer

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError
from kuber.learning.teachers import Teachers


def next_phase(entity: Entity, trained: nn.Module, optimizer: Optimizer) -> Teachers:
    """`entity.step`, after which the loop goes on as it was: the modes of its modules and its learning rates stay.

    A phase that is undone takes the optimizer's state back with it, but not the schedule, which its owner counts.
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
    """SettingsError unless the entity's model is made of what is trained."""
    theirs = {id(parameter) for parameter in trained.parameters()}
    if not all(id(parameter) in theirs for parameter in entity.model.parameters()):
        raise SettingsError(
            f"The model of entity {entity.name} is not the one that is trained; give the entity the same object."
        )


def check_every(every: int) -> None:
    """SettingsError unless a phase can have this many epochs."""
    if every < 1:
        raise SettingsError(f"A phase has one epoch or more, not {every}.")
