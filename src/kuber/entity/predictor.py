"""Predictor: a copy of an owner's model, alone or with teachers, adjusted to the classes of where it is used."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kuber.domain.prior import Frequencies, frequencies, uniform
from kuber.domain.task import Task
from kuber.entity import loop_settings as checks
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.own_prior import OwnPrior
from kuber.entity.stacked_predictor import copied, mixture, stacked
from kuber.entity.validation_data import rows
from kuber.errors import SettingsError, first_line
from kuber.learning.evaluation import EVALUATION_BATCH, has_valid_logits
from kuber.learning.model_call import Inputs, as_floating, batch_size, call_model, floating_dtype, to_device
from kuber.learning.priors import PriorAdjusted, estimated, log_ratio
from kuber.learning.teachers import Teacher

Prior = Literal["own", "uniform", "estimated"] | Sequence[float]

PRIORS = ("own", "uniform", "estimated")


def make_predictor(
    adapter: ModelAdapter,
    known: OwnPrior,
    prior: Prior,
    *,
    strength: float,
    samples: Inputs | None,
    teachers: Sequence[Teacher] | None = None,
) -> nn.Module:
    """Return a copy of the judged model, in evaluation mode, whose logits have this prior in place of their own.

    With teachers it is stacked with copies of them; where there happen to be none, it answers as it is for the own
    mixture, though that is not stated. Raises SettingsError, which names the argument.
    """
    strength = _checked_strength(strength)
    together = _checked_teachers(teachers)
    own = isinstance(prior, str) and prior == "own"
    as_it_is = own and (bool(together) or (teachers is not None and known.of_logits is None))
    carried = mixture(adapter, known) if together or as_it_is else known.of_logits
    if carried is None:
        raise SettingsError(
            "It is not known which class frequencies the logits of the model have: give class_counts to the entity, "
            'or carried_prior="uniform" for a model whose loss is balanced.'
        )
    if (samples is None) == (isinstance(prior, str) and prior == "estimated"):
        raise SettingsError('samples, unlabelled ones as the model takes them, belong to prior="estimated".')
    network = copied(adapter.logits_network)
    if together:
        network = stacked(adapter, network, together, carried)
    if as_it_is:
        target = carried
    elif samples is None:
        target = _target(prior, known, adapter.task)
    else:
        target = estimated(_logits(network, samples, adapter.device), carried)
    shift = log_ratio(carried, target, strength=strength).to(adapter.device)
    return PriorAdjusted(network, shift).eval()


def _target(prior: Any, known: OwnPrior, task: Task) -> Frequencies:
    if isinstance(prior, str):
        if prior not in PRIORS:
            raise SettingsError(f"prior is {prior!r}; give {', '.join(PRIORS)}, or counts, one for each label.")
        if prior == "uniform":
            return uniform(task.classes)
        if known.own is None:
            raise SettingsError("prior is own, but the entity has no class_counts; give it some, or counts here.")
        return known.own
    shares = _shares(prior, task)
    if shares is not None:
        return shares
    try:
        counts = checks.whole_counts(prior, task)
    except SettingsError as error:
        raise SettingsError(error.message.replace("class_counts", "prior", 1)) from None
    if counts is None or not any(counts):
        raise SettingsError(f"prior is {prior!r}; give {', '.join(PRIORS)}, or counts, one for each label.")
    return frequencies(counts)


def _shares(prior: Any, task: Task) -> Frequencies | None:
    """Return frequencies that sum to 1; None for what may be counts."""
    if not isinstance(prior, list | tuple) or len(prior) != task.classes:
        return None
    if not all(isinstance(share, float) and 0 < share < 1 for share in prior) or abs(sum(prior) - 1) > 0.01:
        return None
    return tuple(share / sum(prior) for share in prior)


def _checked_strength(strength: Any) -> float:
    number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not number or not math.isfinite(strength) or strength < 0:
        raise SettingsError(f"strength is {strength!r}; give a number from 0, such as 1 for the whole adjustment.")
    return float(strength)


def _checked_teachers(teachers: Any) -> list[Teacher]:
    if teachers is None:
        return []
    if not isinstance(teachers, Sequence) or not all(isinstance(teacher, Teacher) for teacher in teachers):
        raise SettingsError("teachers must be what step or discover returned.")
    return list(teachers)


def _logits(network: nn.Module, samples: Any, device: torch.device) -> Tensor:
    """Return the logits of unlabelled samples, batch by batch."""
    found = []
    try:
        count = batch_size(samples)
        with torch.no_grad():
            for start in range(0, count, EVALUATION_BATCH):
                part = rows(samples, slice(start, start + EVALUATION_BATCH))
                found.append(call_model(network, as_floating(to_device(part, device), floating_dtype(network))))
    except Exception as error:
        raise SettingsError(
            f"samples cannot be used ({type(error).__name__}: {first_line(error)}); give a tensor, or what the model "
            "takes."
        ) from error
    if not found:
        raise SettingsError("samples are none; an estimate needs at least one.")
    logits = torch.cat(found)
    if not has_valid_logits(logits):
        raise SettingsError("The model returns logits of samples that are not finite, so nothing can be estimated.")
    return logits
