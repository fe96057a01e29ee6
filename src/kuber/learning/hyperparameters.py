"""Hyperparameters of a network that change its answers: what its tensors do not show."""

import functools
import types
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.loss import _Loss

from kuber.learning.wrappers import plain_name

# Not among them: dropout rates, BatchNorm's momentum, `inplace`, and others that change nothing in evaluation mode.
HYPERPARAMETERS = frozenset(
    """
    activation add_zero_attn align_corners alpha approximate batch_first beta bidirectional ceil_mode
    count_include_pad dilation dim div_value divisor_override downscale_factor end_dim eps groups k kernel_size
    lambd lower max_norm max_val min_val mode negative_slope nonlinearity norm_first norm_type normalized_shape
    num_groups num_heads num_layers output_padding output_size padding padding_mode proj_size return_indices
    scale_factor size start_dim stride threshold transposed unflattened_size upper upscale_factor value
    """.split()  # noqa: SIM905
)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def hyperparameters(network: nn.Module) -> list[str]:
    """Return one line for each module with a hyperparameter, and for each one without modules in it; sorted.

    Read are the attributes in HYPERPARAMETERS of torch's modules, and functions of torch, such as an activation, in
    any module. Other attributes of an owner's modules may be notes, counters and paths, which tell nothing about the
    network. Left out are modules that do nothing in evaluation mode: dropout, losses and metrics.
    """
    return sorted(
        " ".join([plain_name(path), _class(module), *_values(module)])
        for path, module in network.named_modules()
        if not _is_idle(module) and (not any(True for _ in module.children()) or [*_values(module)])
    )


def _values(module: nn.Module) -> Iterator[str]:
    if isinstance(module, ScriptModule | GraphModule):
        yield str(getattr(module, "code", ""))
    if isinstance(module, ScriptModule):
        for name in sorted(HYPERPARAMETERS):
            if hasattr(module, name) and _is_plain(getattr(module, name)):
                yield f"{name}={_same_lengths(getattr(module, name))!r}"
        return
    known = _is_of_torch(module)
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or name == "training":
            continue
        if callable(value) and not isinstance(value, nn.Module):
            function = _function(value)
            if function and "loss" not in f"{name} {function}" and "entropy" not in function:
                yield f"{name}={function}"
        elif known and name in HYPERPARAMETERS and _is_plain(value):
            yield f"{name}={_same_lengths(value)!r}"


def _class(module: nn.Module) -> str:
    if isinstance(module, ScriptModule):
        return str(module.original_name)
    if isinstance(module, _NormBase) and _is_of_torch(module):
        return "InstanceNorm" if "Instance" in type(module).__name__ else "BatchNorm"  # SyncBatchNorm is one too
    return type(module).__qualname__


def _is_of_torch(module: nn.Module) -> bool:
    """Return whether a class of torch with hyperparameters made the module, or a class derived from it."""
    return any(
        kind.__module__.startswith("torch.nn.") and kind is not nn.Module and not issubclass(kind, _CONTAINERS)
        for kind in type(module).__mro__
        if issubclass(kind, nn.Module)
    )


def _is_idle(module: nn.Module) -> bool:
    """Return whether a module does nothing to the answers in evaluation mode."""
    kind = type(module)
    return (
        isinstance(module, _DropoutNd | _Loss | nn.Identity)
        or kind.__name__.startswith(("DropPath", "DropBlock", "StochasticDepth"))
        or kind.__module__.startswith("torchmetrics.")
    )


def _function(value: Any) -> str | None:
    """Return the name of a function of torch, with the arguments that `functools.partial` binds; None for others."""
    if isinstance(value, functools.partial):
        name = _function(value.func)
        bound = [*map(repr, value.args), *(f"{key}={part!r}" for key, part in sorted(value.keywords.items()))]
        plain = all(_is_plain(part) for part in (*value.args, *value.keywords.values()))
        return f"{name}({', '.join(bound)})" if name and plain else name
    if not isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return None
    found = any(getattr(place, value.__name__, None) is value for place in (F, torch))
    return value.__name__ if found else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _same_lengths(value: Any) -> Any:
    """Return 3 for (3, 3): a pooling layer keeps what it was made with."""
    if isinstance(value, tuple | list) and value and all(part == value[0] for part in value):
        return value[0]
    return tuple(value) if isinstance(value, list) else value
