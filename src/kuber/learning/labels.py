"""Labels of a batch, in every form that `torch.nn.functional.cross_entropy` and its binary form take."""

import torch
from torch import Tensor

from kuber.errors import SettingsError

IGNORED = -100  # the label of a sample that cross_entropy leaves out


def uniform_labels(labels: Tensor, *, samples: int, classes: int) -> Tensor:
    """Return labels as int64 class indices, shape (samples,), or as probabilities, shape (samples, classes).

    `labels` are class indices of any integer type or booleans, shape (samples,) or (samples, 1), or probabilities,
    shape (samples, classes), or for two classes the probability of the second, shape (samples,) or (samples, 1).
    Only shapes and types are looked at, so a GPU does not wait. Raises SettingsError for others.
    """
    if not isinstance(labels, Tensor):
        raise SettingsError(f"labels must be a tensor, not {type(labels).__name__}.")
    shape = tuple(labels.shape)
    if labels.is_floating_point():
        labels = labels.detach()
        labels = labels.float() if labels.dtype.itemsize < 4 else labels
        if shape == (samples, classes):
            return labels
        if classes == 2 and shape in ((samples,), (samples, 1)):
            second = labels.reshape(samples)
            return torch.stack((1 - second, second), dim=1)
        expected = f"the shape of the logits, {(samples, classes)}"
    else:
        if shape in ((samples,), (samples, 1)) and not labels.is_complex():
            return labels.reshape(samples).long()
        expected = f"shape {(samples,)}"
    raise SettingsError(
        f"labels of type {labels.dtype} must have {expected}, but they have shape {shape}; KUber needs one label, or "
        f"one probability for each of the {classes} classes, for each sample."
    )


def check_values(labels: Tensor, *, classes: int, ignore_index: int = IGNORED) -> None:
    """Raise SettingsError unless all `uniform_labels` are classes, ignored, or probabilities. A GPU waits for it."""
    if not len(labels):
        return
    if labels.is_floating_point():
        if not bool(((labels >= 0) & (labels <= 1 + 1e-4)).all()):
            raise SettingsError("labels given as floats must be probabilities, from 0 to 1.")
        return
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if bool(wrong.any()):
        value = int(labels[wrong][0])
        raise SettingsError(
            f"labels must be from 0 to {classes - 1}, or {ignore_index} for a sample that is ignored, but one is "
            f"{value}."
        )


def known_rows(labels: Tensor, *, classes: int, ignore_index: int = IGNORED) -> Tensor:
    """Return which rows of `uniform_labels` have a label, shape (samples,)."""
    if labels.is_floating_point():
        return labels.sum(1) > 0
    return (labels >= 0) & (labels < classes) & (labels != ignore_index)
