"""Combine an owner's model with copies of its teachers: for use, by weights fitted to the validation data."""

import copy
import logging
from collections.abc import Sequence

import torch
from torch import nn

from kuber.domain.prior import Frequencies, frequencies
from kuber.entity.model_adapter import ModelAdapter
from kuber.entity.own_prior import OwnPrior
from kuber.errors import CorruptKnowledgeError, KnowledgeError, SettingsError, first_line
from kuber.learning.evaluation import has_valid_logits
from kuber.learning.model_call import LogitsModel, floating_dtype
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.stacking import Stacked, StackedTeacher, fitted_weights
from kuber.learning.swapped_network import SwappedNetwork
from kuber.learning.teachers import LabelMapped, Teacher
from kuber.learning.weights import load_weights

log = logging.getLogger("kuber")


def mixture(adapter: ModelAdapter, known: OwnPrior) -> Frequencies:
    """Return the class frequencies of the training samples; those of the validation data where they are not stated.

    Raises SettingsError without validation data.
    """
    return known.own or _of_validation(adapter)


def stacked(
    adapter: ModelAdapter, network: nn.Module, teachers: Sequence[Teacher], carried: Frequencies
) -> nn.Module:
    """Return a network, with its weights, stacked with copies of teachers; its logits have the prior `carried`.

    The validation data count as if their classes had these frequencies. A teacher that cannot be run is left out,
    with a warning. Raises SettingsError without validation data, or when the network's logits are not finite.
    """
    seen = torch.tensor(_of_validation(adapter))
    own, labels = adapter.answers(LogitsModel(network, adapter.task.classes))
    if not has_valid_logits(own):
        raise SettingsError("The model returns logits of the validation data that are not finite.")
    copies, answers = [], []
    for teacher in teachers:
        try:
            made = standalone(teacher)
            found, _ = adapter.answers(made)
            if not has_valid_logits(found):
                raise CorruptKnowledgeError("It returns logits that are not finite.")
        except Exception as error:  # noqa: BLE001 - a network of others may raise anything
            reason = error.message if isinstance(error, KnowledgeError) else first_line(error)
            log.warning("The teacher %s is left out of the predictor: %s", teacher, reason)
            continue
        copies.append(made)
        answers.append(found)
    log_prior = torch.tensor(carried).log()
    importance = (torch.tensor(carried) / seen)[labels]
    weights = fitted_weights(own, answers, labels, log_prior, importance / importance.mean())
    useful = [place for place in range(len(copies)) if weights[1 + place] > 0]
    kept = weights[[0, *(1 + place for place in useful), len(weights) - 1]]
    return Stacked(network, [copies[place] for place in useful], kept, log_prior).to(adapter.device).eval()


def standalone(teacher: Teacher) -> StackedTeacher:
    """Return a teacher's network that no longer depends on the owner's model, nor on the phase."""
    network = teacher.network
    inner: nn.Module = network.network if isinstance(network, LabelMapped) else network
    made: nn.Module
    dtype: torch.dtype | None = torch.float32
    if isinstance(inner, SwappedNetwork):
        module, weights = inner.parts
        made, dtype = LogitsModel(copied(module), inner.classes), None  # it takes what the owner's model takes
        load_weights(made.model, weights)
    elif isinstance(inner, OnnxModel):
        made = inner.again()
    else:
        made, dtype = copied(inner), floating_dtype(inner) or torch.float32
    if isinstance(network, LabelMapped):
        outer = copy.copy(network)
        outer._modules = {"network": made}
        made = outer
    classes = len(teacher.evaluation.total)
    return StackedTeacher(made, torch.zeros(classes) if teacher.shift is None else teacher.shift, dtype)


def copied(network: nn.Module) -> nn.Module:
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
            f"The model cannot be copied ({type(error).__name__}: {first_line(error)}); a predictor needs one that "
            "copy.deepcopy takes."
        ) from error
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
    return made.requires_grad_(False).eval()


def _of_validation(adapter: ModelAdapter) -> Frequencies:
    if adapter.data is None:
        raise SettingsError("teachers need validation data, which the entity has not: a function evaluates.")
    return frequencies(torch.bincount(adapter.data.labels, minlength=adapter.task.classes).tolist())
