"""Checks of an owner's batches: the first is refused if it cannot be used; a later one only adds no loss."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kuber.errors import SettingsError
from kuber.learning.labels import IGNORED, check_values, uniform_labels
from kuber.learning.model_call import LABEL_KEYS, Inputs, batch_size, logits_from

log = logging.getLogger("kuber")


class BatchCheck:
    """Checks of the batches of one training, whose first batch shows whether its owner's arguments are right.

    So a mistake is raised at once, teachers or not, and nothing that comes later ends a training of hours.
    """

    def __init__(self) -> None:
        self.passed = False  # whether a batch has passed
        self._warned = False

    def batch(
        self, student: Any, x: Any, labels: Any, *, classes: int, ignore_index: int = IGNORED
    ) -> tuple[Tensor, Inputs, Tensor] | None:
        """Return the student's logits, the inputs and uniform labels; None if a batch after the first is unusable.

        Shapes and types are looked at each time, values on the first batch only, because a GPU waits for them.
        Raises SettingsError naming the argument when the first batch cannot be used.
        """
        try:
            logits = student_logits(student, classes)
            labels = self.labels(labels, samples=len(logits), classes=classes, ignore_index=ignore_index)
            inputs = model_inputs(x)
            if batch_size(inputs) != len(logits):
                raise SettingsError(
                    f"x has {batch_size(inputs)} samples, but student has logits of {len(logits)}: give the batch "
                    "that the logits were computed for."
                )
        except SettingsError as error:
            if self.passed:
                self._leave_out(error)
                return None
            raise
        self.passed = True
        return logits, inputs, labels

    def labels(self, labels: Any, *, samples: int, classes: int, ignore_index: int = IGNORED) -> Tensor:
        """Return `uniform_labels` of a batch. Raises SettingsError; for their values only on the first batch."""
        uniform = uniform_labels(labels, samples=samples, classes=classes)
        if not self.passed and not torch.compiler.is_compiling():
            check_values(uniform, classes=classes, ignore_index=ignore_index)
        return uniform

    def _leave_out(self, error: SettingsError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("A batch is trained without its teachers: %s", error.message)


def student_logits(student: Any, classes: int) -> Tensor:
    """Return the logits of a student's output, shape (batch, classes). Raises SettingsError naming `student`."""
    try:
        return logits_from(student, classes=classes)
    except SettingsError as error:
        reason = error.message[:1].lower() + error.message[1:]
        raise SettingsError(f"student must be the logits of a batch: {reason}") from None


def model_inputs(x: Any) -> Inputs:
    """Return `x` as inputs of a model, without labels that are among them. Raises SettingsError naming `x`."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, Mapping):
        named = {str(name): value for name, value in x.items() if name not in LABEL_KEYS}
        if named and all(isinstance(value, Tensor) for value in named.values()):
            return named
    elif isinstance(x, tuple | list) and x and all(isinstance(value, Tensor) for value in x):
        return tuple(x)
    raise SettingsError(
        f"x must be what the model takes, a tensor, or a tuple or dict of tensors, not {type(x).__name__}"
        + (f" with the keys {', '.join(map(repr, x)) or 'none'}." if isinstance(x, Mapping) else ".")
    )
