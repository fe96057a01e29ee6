"""Validation data of an owner: the samples and labels that decisions are made on, in memory."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kuber.domain.digest import Digest
from kuber.domain.task import Task
from kuber.errors import SettingsError, first_line
from kuber.learning.evaluation import EVALUATION_BATCH
from kuber.learning.model_call import Collate, Inputs, map_tensors, split_batch, tensors_in, to_device
from kuber.learning.random_state import kept_generators, kept_random_state

Batch = tuple[Inputs, Tensor]
Validation = Iterable[Any] | tuple[Any, ...] | Mapping[str, Any]


class LabelledData:
    """Samples and their labels, in memory; samples are one tensor, or a tuple or dict of tensors."""

    def __init__(self, validation: Validation, collate: Collate | None = None) -> None:
        """Take one batch, batches, or a Dataset; `kuber.learning.model_call.split_batch` says which forms of a batch.

        Batches are joined where their samples have the same shapes; padded to several lengths they are kept as they
        are. Raises SettingsError when there is no sample, or labels are not whole numbers, one for each sample.
        """
        with kept_random_state(), kept_generators(*_generators_of(validation)):
            batches = [_checked(*_split(batch, collate)) for batch in _batches(validation, collate)]
        batches = [(inputs, labels) for inputs, labels in batches if len(labels)]
        if not batches:
            raise SettingsError("The validation data are empty; give at least one sample.")
        if len({_form(inputs) for inputs, _ in batches}) > 1:
            raise SettingsError("The batches of validation differ in form; give all of them the same inputs.")
        self._rows = min(EVALUATION_BATCH, max(len(labels) for _, labels in batches))
        if len(batches) == 1:  # all samples at once: their number says nothing about memory
            self._rows = EVALUATION_BATCH
        self._label_dtype = batches[0][1].dtype
        self._parts = [(inputs, labels.long()) for inputs, labels in _joined(batches)]

    @property
    def labels(self) -> Tensor:
        """Labels of all samples, int64."""
        return torch.cat([labels for _, labels in self._parts])

    @property
    def samples(self) -> Inputs:
        """All samples, if they can be joined; else those of the first batch."""
        return self._parts[0][0]

    @property
    def digest(self) -> Digest:
        """Digest of shapes, dtypes, samples and labels, in order; whatever the batch size, if batches were joined."""
        pieces = []
        for inputs, labels in self._parts:
            y = labels.to(self._label_dtype)
            if isinstance(inputs, Tensor):
                pieces += [f"{inputs.dtype} {tuple(inputs.shape)} {y.dtype}\n".encode(), _bytes(inputs), _bytes(y)]
                continue
            names = sorted(inputs) if isinstance(inputs, Mapping) else [""] * len(inputs)
            tensors = [inputs[name] for name in names] if isinstance(inputs, Mapping) else list(inputs)
            for name, tensor in zip(names, tensors, strict=True):
                pieces += [f"{name!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode(), _bytes(tensor)]
            pieces += [f"labels {y.dtype} {tuple(y.shape)}\n".encode(), _bytes(y)]
        return Digest.of(*pieces)

    def batches(self, device: torch.device) -> Iterator[Batch]:
        """Yield all samples and labels on a device, in batches no larger than the owner's."""
        for inputs, labels in self._parts:
            if all(len(tensor) == len(labels) for tensor in tensors_in(inputs)):
                for start in range(0, len(labels), self._rows):
                    part = slice(start, start + self._rows)
                    yield to_device(rows(inputs, part), device), labels[part].to(device)
            else:
                yield to_device(inputs, device), labels.to(device)

    def first(self, count: int) -> Inputs:
        """Return the first samples, at most this many, where the samples can be divided; else the first batch."""
        inputs, labels = self._parts[0]
        divisible = all(len(tensor) == len(labels) for tensor in tensors_in(inputs))
        return rows(inputs, slice(count)) if divisible else inputs

    def spread(self, count: int) -> Inputs:
        """Return samples spread over all of one tensor, at most this many; of other inputs the first."""
        x = self.samples
        if not isinstance(x, Tensor):
            return self.first(count)
        return x[torch.linspace(0, len(x) - 1, min(count, len(x))).long()]

    def not_finite(self) -> Tensor | None:
        """Return the samples, of one tensor, that hold numbers which are not finite; None if there is none."""
        x = self.samples
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return None
        faulty = ~torch.isfinite(x).flatten(1).all(1) if x.dim() > 1 else ~torch.isfinite(x)
        return x[faulty] if faulty.any() else None

    def check(self, task: Task) -> None:
        """Raise SettingsError unless shapes, labels and digest are those of the task."""
        for inputs, labels in self._parts:
            if isinstance(inputs, Tensor) and tuple(inputs.shape[1:]) != task.input_shape:
                raise SettingsError(
                    f"Samples of validation have shape {tuple(inputs.shape[1:])}, but those of the task "
                    f"{task.input_shape}."
                )
            outside = labels[(labels < 0) | (labels >= task.classes)]
            if len(outside):
                ignored = "; leave out samples with it, which losses ignore" if -100 in outside else ""
                raise SettingsError(
                    f"Labels of validation must be from 0 to {task.classes - 1}, but {int(outside[0])} occurs"
                    f"{ignored}."
                )
        if task.test_set is not None and self.digest != task.test_set:
            raise SettingsError("The validation data are not the common test set whose digest the task has.")


def test_set_digest(validation: Validation, collate: Collate | None = None) -> Digest:  # noqa: PT028 - no test
    """Return the digest of a common test set, for `Task(test_set=...)`. It does not depend on the batch size."""
    return LabelledData(validation, collate).digest


def rows(inputs: Inputs, part: slice) -> Inputs:
    """Return a part of the samples."""
    return map_tensors(inputs, lambda tensor: tensor[part])


def _batches(validation: Any, collate: Collate | None) -> Iterator[Any]:
    if isinstance(validation, Dataset):  # single samples
        validation = DataLoader(validation, batch_size=EVALUATION_BATCH)
    if isinstance(validation, Mapping) or _is_batch(validation, collate):
        validation = [validation]
    if isinstance(validation, Tensor | np.ndarray | str) or not isinstance(validation, Iterable):
        raise SettingsError(
            f"The argument validation is a {type(validation).__name__}; give two tensors (x, y), or batches."
        )
    yield from validation


def _is_batch(value: Any, collate: Collate | None) -> bool:
    """Return whether a value is one batch, such as (x, y), and no sequence of batches."""
    if collate is not None and not isinstance(value, tuple):
        return False
    return isinstance(value, tuple | list) and len(value) > 1 and _is_column(value[-1])


def _is_column(value: Any) -> bool:
    """Return whether a value can only be the labels of a batch, or a tensor of it."""
    if isinstance(value, list | tuple | range):
        return len(value) > 0 and all(isinstance(part, int | float | str) for part in value)
    return hasattr(value, "__array__")  # a tensor, an array, or a column of pandas


def _split(batch: Any, collate: Collate | None) -> Batch:
    try:
        return split_batch(batch, collate)
    except SettingsError as error:
        raise SettingsError(f"The argument validation cannot be used: {error.message}") from None
    except Exception as error:
        if collate is None:
            raise
        failure = f"{type(error).__name__}: {first_line(error)}"
        raise SettingsError(f"The function collate raised {failure}, for a batch of validation.") from error


def _checked(inputs: Inputs, labels: Tensor) -> Batch:
    """Return a batch on the CPU, with one label for each sample."""
    inputs = map_tensors(inputs, lambda tensor: tensor.detach().cpu())
    tensors = tensors_in(inputs)
    if labels.dim() == 0 or any(tensor.dim() == 0 for tensor in tensors):
        raise SettingsError("The argument validation yields single samples; give batches, as a DataLoader does.")
    if any(tensor.layout != torch.strided for tensor in (labels, *tensors)):
        raise SettingsError("The argument validation has sparse tensors; give dense ones, as x.to_dense() returns.")
    labels = labels.detach().cpu()
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels.flatten()
    if labels.dim() != 1 or labels.is_complex():
        raise SettingsError(
            f"Labels of validation must be whole numbers, one for each sample, not of shape {tuple(labels.shape)}"
            f"{'; of rows of 0 and 1 give y.argmax(1)' if labels.dim() == 2 else ''}."
        )
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise SettingsError("Labels of validation must be whole numbers, one for each sample, not fractions.")
    if all(len(tensor) != len(labels) for tensor in tensors):
        raise SettingsError(f"The validation data have {len(tensors[0])} samples, but {len(labels)} labels.")
    return inputs, labels


def _joined(batches: list[Batch]) -> list[Batch]:
    """Return one batch of all samples, if their shapes allow it; else the batches."""
    shapes = {tuple(tuple(tensor.shape[1:]) for tensor in tensors_in(inputs)) for inputs, _ in batches}
    divisible = all(len(tensor) == len(labels) for inputs, labels in batches for tensor in tensors_in(inputs))
    if len(batches) == 1 or len(shapes) > 1 or not divisible:
        return batches
    labels = torch.cat([labels for _, labels in batches])
    first = batches[0][0]
    if isinstance(first, Mapping):
        return [({name: torch.cat([_by_name(inputs)[name] for inputs, _ in batches]) for name in first}, labels)]
    columns = [torch.cat(column) for column in zip(*(tensors_in(inputs) for inputs, _ in batches), strict=True)]
    return [(columns[0] if isinstance(first, Tensor) else tuple(columns), labels)]


def _by_name(inputs: Inputs) -> dict[str, Tensor]:
    assert isinstance(inputs, dict)
    return inputs


def _form(inputs: Inputs) -> Any:
    """Return what has to be equal in all batches: the names of a dict, or the number of tensors."""
    if isinstance(inputs, Mapping):
        return tuple(sorted(inputs))
    return len(inputs) if isinstance(inputs, tuple) else None


def _generators_of(validation: Any) -> list[Any]:
    """Return the generators that a loader draws from."""
    sampler = getattr(validation, "sampler", None)
    return [getattr(validation, "generator", None), getattr(sampler, "generator", None)]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
