"""Predictor: a copy of an owner's model whose logits are adjusted to the classes of the place where it is used."""

import copy
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
from kuber.entity.validation_data import rows
from kuber.errors import SettingsError, first_line
from kuber.learning.evaluation import EVALUATION_BATCH, has_valid_logits
from kuber.learning.model_call import Inputs, as_floating, batch_size, call_model, floating_dtype, to_device
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.priors import PriorAdjusted, estimated, log_ratio

Prior = Literal["own", "uniform", "estimated"] | Sequence[float]

PRIORS = ("own", "uniform", "estimated")


def make_predictor(
    adapter: ModelAdapter, known: OwnPrior, prior: Prior, *, strength: float, samples: Inputs | None
) -> nn.Module:
    """Return a copy of the judged model, in evaluation mode, whose logits have this prior in place of their own.

    Raises SettingsError, which names the argument.
    """
    strength = _checked_strength(strength)
    carried = known.of_logits
    if carried is None:
        raise SettingsError(
            "It is not known which class frequencies the logits of the model have: give class_counts to the entity, "
            'or carried_prior="uniform" for a model whose loss is balanced.'
        )
    if (samples is None) == (isinstance(prior, str) and prior == "estimated"):
        raise SettingsError('samples, unlabelled ones as the model takes them, belong to prior="estimated".')
    network = _copy(adapter.logits_network)
    if samples is None:
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


def _copy(network: nn.Module) -> nn.Module:
    """Return an independent copy; of a graph, whose process cannot be copied, the graph itself."""
    if any(isinstance(module, OnnxModel) for module in network.modules()):
        return network
    gradients = [(weight, weight.grad) for weight in network.parameters()]
    try:
        for weight, _ in gradients:
            weight.grad = None  # they are as large as the weights
        made = copy.deepcopy(network)
    except Exception as error:
        raise SettingsError(
            f"The model cannot be copied ({type(error).__name__}: {first_line(error)}); add the shift to its logits "
            "yourself."
        ) from error
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
    return made.requires_grad_(False).eval()


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
