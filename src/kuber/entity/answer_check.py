"""Check of an owner's model before anything is sent: whether it takes the validation data and returns logits."""

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kuber.domain.task import Task
from kuber.entity.validation_data import LabelledData
from kuber.errors import SettingsError, first_line
from kuber.learning.evaluation import EVALUATION_BATCH, evaluation_mode, has_valid_logits
from kuber.learning.model_call import (
    Inputs,
    as_floating,
    batch_size,
    call_model,
    described,
    dtype_name,
    floating_dtype,
    logits_from,
    tensors_in,
    to_device,
)

CHECKED_SAMPLES = 3

log = logging.getLogger("kuber")


class Answers(NamedTuple):
    """Findings about a model's calls: how inputs are passed, and whether it returns plain logits."""

    as_given: bool = False  # floating inputs keep their dtype; else they get the model's
    plain: bool = True  # the output is a tensor of shape (batch, classes)


def check_answers(model: nn.Module, task: Task, data: LabelledData, device: torch.device) -> Answers:
    """Run the model on a few validation samples.

    Raises SettingsError when it does not take them, or returns anything but finite logits for the labels of the task.
    """
    inputs = to_device(data.first(CHECKED_SAMPLES), device)
    as_given, output = _run(model, inputs)
    logits = logits_from(output, classes=task.classes, samples=batch_size(inputs))
    _check_finite(logits, data, inputs)
    faulty = data.not_finite()
    if faulty is not None:
        some = faulty[:CHECKED_SAMPLES].to(device)
        _, answer = _run(model, some)
        if not has_valid_logits(logits_from(answer, classes=task.classes, samples=len(some))):
            raise SettingsError(
                f"The validation data hold {len(faulty)} samples with values that are not finite, for which the "
                "model returns none that are; fill them, or leave them out."
            )
    if _like_probabilities(output, logits):
        _, more = _run(model, to_device(data.first(EVALUATION_BATCH), device))
        _warn_of_probabilities(more, task.classes)
    return Answers(as_given, _is_plain(output, batch_size(inputs), task.classes))


def check_answers_to_zeros(model: nn.Module, task: Task, device: torch.device) -> Answers:
    """Run the model on samples of zeros, where there are no validation data; skip what cannot be checked so.

    Raises SettingsError when the model returns logits for another number of labels.
    """
    dtype = floating_dtype(model) or torch.float32
    x = torch.zeros(2, *task.input_shape, dtype=dtype, device=device)
    try:
        with evaluation_mode(model):
            output = call_model(model, x)
    except Exception:  # noqa: BLE001 - the model may take token ids, several inputs, ...
        return Answers()
    if not isinstance(output, Tensor):
        return Answers(plain=False)
    logits_from(output, classes=task.classes, samples=len(x))
    return Answers(plain=_is_plain(output, len(x), task.classes))


def _run(model: nn.Module, inputs: Inputs) -> tuple[bool, Any]:
    """Return whether inputs are passed as given, rather than in the model's dtype, and the output."""
    failure: Exception | None = None
    cast = as_floating(inputs, floating_dtype(model))
    for as_given, value in ((False, cast), (True, inputs)):
        try:
            with evaluation_mode(model):
                return as_given, call_model(model, value)
        except Exception as error:  # noqa: BLE001 - an owner's forward may raise anything
            failure = failure or error
    assert failure is not None
    raise SettingsError(_refusal(inputs, failure, floating=floating_dtype(model) is not None)) from failure


def _refusal(inputs: Inputs, failure: Exception, *, floating: bool) -> str:
    reason = f"{type(failure).__name__}: {first_line(failure)}"
    if isinstance(inputs, Tensor) and not inputs.is_floating_point() and floating:
        change = "x.float() / 255" if inputs.dtype == torch.uint8 else "x.float()"
        return (
            f"The samples of validation are {dtype_name(inputs)}, which the model does not take ({reason}); convert "
            f"them as for training, for example {change}."
        )
    if not isinstance(inputs, Tensor) and isinstance(failure, TypeError):
        return (
            f"The model does not take the inputs of validation, {described(inputs)} ({reason}); pass collate=, a "
            "function of a batch that returns (inputs, labels)."
        )
    return f"The model does not take the samples of validation, {described(inputs)}: {reason}."


def _check_finite(logits: Tensor, data: LabelledData, inputs: Inputs) -> None:
    if has_valid_logits(logits):
        return
    what = "NaN" if bool(logits.isnan().any()) else "infinite numbers"
    if any(tensor.is_floating_point() and not torch.isfinite(tensor).all() for tensor in tensors_in(inputs)):
        raise SettingsError(
            f"The model returns {what} for samples of validation, which hold values that are not finite themselves; "
            "fill them, or leave them out."
        )
    raise SettingsError(f"The model returns {what} for samples of validation; start from a sound model.")


def _is_plain(output: Any, samples: int, classes: int) -> bool:
    return isinstance(output, Tensor) and tuple(output.shape) == (samples, classes)


def _like_probabilities(output: Any, logits: Tensor) -> bool:
    """Return whether the model's numbers may be probabilities, after a sigmoid or softmax."""
    if logits.shape[1] == 2 and bool((logits[:, 0] == 0).all()):  # a single logit
        return bool(((logits[:, 1] >= 0) & (logits[:, 1] <= 1)).all())
    return bool((logits >= 0).all()) and bool(torch.isclose(logits.sum(1), logits.new_ones(()), atol=1e-3).all())


def _warn_of_probabilities(output: Any, classes: int) -> None:
    logits = logits_from(output, classes=classes)
    if not _like_probabilities(output, logits):
        return
    if logits.shape[1] == 2 and bool((logits[:, 0] == 0).all()):
        log.warning(
            "The model's single output is between 0 and 1 for the validation samples; if it is a probability, return "
            "the number before the sigmoid: KUber takes it as a logit, which stands for the second label above 0."
        )
    else:
        log.warning(
            "The model's outputs look like probabilities; return the numbers before the softmax: KUber takes them as "
            "logits, and losses apply a softmax of their own."
        )
