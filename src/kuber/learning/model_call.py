"""Calls of an owner's model: its inputs, taken from a batch, and the logits, taken from what it returns."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kuber.errors import SettingsError

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Collate = Callable[[Any], tuple[Inputs, Tensor]]  # a batch of the owner's -> (inputs, labels)

LABEL_KEYS = ("labels", "label")  # of a batch that is a mapping
_FORMS = "a pair (x, y), several inputs (a, b, y), or a mapping with the key 'labels'; else pass collate="


def call_model(model: Callable[..., Any], inputs: Inputs) -> Any:
    """Return `model(x)`, `model(a, b)` for a tuple, or `model(**inputs)` for a dict."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def logits_from(output: Any, *, classes: int, samples: int | None = None) -> Tensor:
    """Return the logits in a model's output: floating numbers of shape (batch, classes), with their gradient.

    The output is a tensor, an object or dict with `logits`, or a tuple that begins with them. With two classes a
    model may return one number a sample, shape (batch, 1) or (batch,): the logit z of the second class, so that the
    result is (0, z). float16 and bfloat16 become float32. `samples` is the batch size, if it is known. Raises
    SettingsError, with both shapes, when the output fits no task of this many classes.
    """
    logits = _tensor_in(output)
    if logits is None:
        raise SettingsError(
            f"The model returns {_kind(output)}; it must return logits: a tensor of shape (batch, {classes}), an "
            "object or dict with `logits`, or a tuple that begins with them."
        )
    if not logits.is_floating_point():
        raise SettingsError(
            f"The model returns numbers of type {dtype_name(logits)}; it must return logits, which are floating."
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    # Shapes, not `len`: a tracer keeps them variable, and -1 below too.
    count = samples if samples is not None else (logits.shape[0] if logits.dim() else 1)
    shape = tuple(logits.shape)
    if shape == (count, classes):
        return logits
    if shape in ((classes,), (1,), ()) and count == 1:  # a squeezed batch of one sample
        logits = logits.reshape(1, -1)
    if classes == 2 and tuple(logits.shape) in ((count, 1), (count,)):
        return nn.functional.pad(logits.reshape(-1, 1), (1, 0))
    if tuple(logits.shape) == (count, classes):
        return logits
    advice = " A single logit needs a task of two labels." if shape in ((count, 1), (count,)) else ""
    raise SettingsError(
        f"The model returns shape {shape} for {count} samples, but the task has {classes} labels: it must return "
        f"logits of shape ({count}, {classes}).{advice}"
    )


class LogitsModel(nn.Module):
    """A model as a network that returns logits, shape (batch, classes), whatever form its own output has."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes

    def forward(self, *inputs: Any, **named: Tensor) -> Tensor:
        """Return the logits for what the model takes, or for one `Inputs` value."""
        value: Inputs = named or (inputs[0] if len(inputs) == 1 else inputs)
        return logits_from(call_model(self.model, value), classes=self.classes, samples=batch_size(value))


def split_batch(batch: Any, collate: Collate | None = None) -> tuple[Inputs, Tensor]:
    """Return the inputs and the labels of a batch.

    Without `collate`, which maps the owner's batch to them, a batch is a pair (x, y), with x a tensor, a tuple or a
    dict of tensors; a tuple (a, b, ..., y), for `model(a, b, ...)`; or a mapping with the key "labels" or "label",
    for `model(**rest)`. Arrays become tensors. Raises SettingsError for anything else.
    """
    if collate is not None:
        parts = collate(batch)
        if not isinstance(parts, tuple | list) or len(parts) != 2:
            raise SettingsError(f"collate must return a pair (inputs, labels), not {_kind(parts)}.")
        return _inputs(parts[0]), _tensor(parts[1])
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch), None)
        rest = {str(name): value for name, value in batch.items() if name != key}
        if key is None or not rest:
            keys = ", ".join(map(repr, batch)) or "none"
            raise SettingsError(f"A batch has the keys {keys}, but it must be {_FORMS}.")
        return _inputs(rest), _tensor(batch[key])
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise SettingsError(f"A batch is {_kind(batch)}, but it must be {_FORMS}.")
    *rest_parts, labels = batch
    return _inputs(rest_parts[0] if len(rest_parts) == 1 else tuple(rest_parts)), _tensor(labels)


def to_device(inputs: Inputs, device: torch.device | str) -> Inputs:
    """Return the inputs on a device."""
    return map_tensors(inputs, lambda tensor: tensor.to(device))


def as_floating(inputs: Inputs, dtype: torch.dtype | None) -> Inputs:
    """Return the inputs with this dtype where they are floating numbers; whole numbers and masks stay as they are."""
    if dtype is None:
        return inputs
    return map_tensors(inputs, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def map_tensors(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return the inputs with each tensor changed by a function."""
    if isinstance(inputs, Mapping):
        return {name: change(tensor) for name, tensor in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(change(tensor) for tensor in inputs)
    return change(inputs)


def tensors_in(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the tensors of the inputs, in order."""
    if isinstance(inputs, Mapping):
        return tuple(inputs.values())
    return inputs if isinstance(inputs, tuple) else (inputs,)


def batch_size(inputs: Inputs) -> int:
    """Return the number of samples: the length of the first tensor."""
    first = tensors_in(inputs)[0]
    return first.shape[0] if first.dim() else 1  # not len: a traced graph would hold it as a constant


def described(inputs: Inputs) -> str:
    """Return the shapes and dtypes of the inputs, for a sentence: "shape (3, 4), float32"."""
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {tuple(tensor.shape)} {dtype_name(tensor)}" for name, tensor in inputs.items())
    return " and ".join(f"shape {tuple(tensor.shape)}, {dtype_name(tensor)}" for tensor in tensors_in(inputs))


def dtype_name(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, such as "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def floating_dtype(network: nn.Module) -> torch.dtype | None:
    """Return the dtype of the network's first floating parameter or buffer; None if it has none."""
    for tensors in (network.parameters(), network.buffers()):
        for tensor in tensors:
            if tensor.is_floating_point():
                return tensor.dtype
    return None


def _tensor_in(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, tuple | list) and output:
        return _tensor_in(output[0])
    return None


def _inputs(value: Any) -> Inputs:
    if isinstance(value, Mapping):
        return {str(name): _tensor(part) for name, part in value.items()}
    if isinstance(value, tuple | list) and value and not _is_numbers(value) and not _is_table(value):
        return tuple(_tensor(part) for part in value)
    return _tensor(value)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "__array__"):  # an array, or a table or column of pandas
        value = value if isinstance(value, np.ndarray) else np.array(value)
        if value.dtype.kind in "biuf":
            return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, tuple | list | range) and (_is_numbers(value) or _is_table(value)):
        return torch.tensor(value)
    raise SettingsError(f"A batch has {_kind(value)} where a tensor is expected; a batch must be {_FORMS}.")


def _is_numbers(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(part, int | float) for part in value)


def _is_table(value: Sequence[Any]) -> bool:
    """Return whether a value is a list of lists of numbers, all of one length."""
    rows = isinstance(value, list) and all(isinstance(row, list) and _is_numbers(row) for row in value)
    return rows and len({len(row) for row in value}) == 1


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        return f"an array of {value.dtype.name}"
    if isinstance(value, Tensor | np.ndarray):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, value)) or 'none'}"
    if isinstance(value, tuple | list):
        texts = " texts" if any(isinstance(part, str) for part in value) else ""
        return f"a {type(value).__name__} of {len(value)}{texts}"
    return f"a {type(value).__name__}"
