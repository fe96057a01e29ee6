"""Copies of what optimizers keep for each parameter, which find their parameter again whatever else changed."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kuber.errors import SettingsError

_INNER = ("optimizer", "base_optimizer", "_optimizer")  # attributes by which a wrapper holds the optimizer


class OptimizerCopy:
    """State of optimizers by parameter: groups may come and go, and learning rates stay as they are.

    With `options` also what each group sets, such as its learning rate.
    """

    def __init__(self, *, options: bool = False) -> None:
        self._with_options = options
        self._states: dict[int, dict[Any, Any]] = {}  # id of an optimizer -> parameter -> state
        self._options: dict[int, list[tuple[Any, dict[str, Any]]]] = {}  # -> first parameter and options of a group
        self._kept: list[Any] = []  # these optimizers: an id is unique among living objects

    def take(self, optimizers: Sequence[Any]) -> None:
        """Copy the state of these optimizers, in place of what was copied before."""
        before, self._states, self._kept = self._states, {}, list(optimizers)
        self._options = {}
        for optimizer in optimizers:
            old = before.get(id(optimizer), {})
            self._states[id(optimizer)] = {
                parameter: copied(state, old.get(parameter), device="cpu")
                for parameter, state in optimizer.state.items()
            }
            if self._with_options:
                self._options[id(optimizer)] = [
                    (_first(group), {name: copied(value) for name, value in group.items() if name != "params"})
                    for group in optimizer.param_groups
                ]

    def restore(self, optimizers: Sequence[Any]) -> None:
        """Put the copies back; what has none, such as parameters of a new group, begins without state."""
        for optimizer in optimizers:
            states = self._states.get(id(optimizer), {})
            for parameter in list(optimizer.state):
                if parameter not in states:
                    _reset(optimizer, parameter)
            for parameter, state in states.items():
                if parameter in optimizer.state or _has(optimizer, parameter):
                    optimizer.state[parameter] = _put_back(state, optimizer.state.get(parameter), parameter)
            for first, options in self._options.get(id(optimizer), ()):
                for group in optimizer.param_groups:
                    if _first(group) is first:
                        group.update({key: _put_back(value, group.get(key), None) for key, value in options.items()})


def optimizers_in(value: Any) -> list[Any]:
    """Return the optimizers in what an owner passes: one, a list, a wrapper such as accelerate's, or a scheduler.

    Raises SettingsError naming `optimizer` for anything else. None are none.
    """
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [optimizer for item in value for optimizer in optimizers_in(item)]
    found: list[Any] = []
    outer: Any = value
    while outer is not None:
        state = getattr(outer, "state", None)
        if hasattr(state, "items") and hasattr(outer, "param_groups"):
            # A wrapper shows the state of what it wraps; some keep more in one of their own.
            found = [known for known in found if known.state is not state and known.state != state]
            found.append(outer)
        outer = next((getattr(outer, name) for name in _INNER if getattr(outer, name, None) is not None), None)
    if not found:
        raise SettingsError(f"optimizer is a {type(value).__name__}; give a torch.optim.Optimizer, or None.")
    return found


def copied(value: Any, old: Any = None, *, device: str | None = None) -> Any:
    """Return a copy of a value, its tensors on `device`; tensors of `old`, an earlier copy, are used again."""
    if isinstance(value, Tensor):
        return _copied_tensor(value, old, device)
    if isinstance(value, dict):
        olds = old if isinstance(old, dict) else {}
        return {key: copied(inner, olds.get(key), device=device) for key, inner in value.items()}
    if type(value) in (list, tuple):
        pairs = zip(value, old if _is_like(old, value) else [None] * len(value), strict=True)
        return type(value)(copied(inner, before, device=device) for inner, before in pairs)
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - such as a lock or a generator: nothing of it can go back
        return value


def _copied_tensor(value: Tensor, old: Any, device: str | None) -> Tensor:
    target = value.device if device is None else torch.device(device)
    fits = (
        isinstance(old, Tensor)
        and old.shape == value.shape
        and old.dtype == value.dtype
        and old.device == target
        and old.layout == value.layout == torch.strided
        and not old.is_inference()
    )
    if fits:
        old.copy_(value.detach())
        made: Tensor = old
        return made
    made = value.detach().to(target, copy=True)
    return made.contiguous() if made.layout == torch.strided else made


def _put_back(saved: Any, live: Any, parameter: Any) -> Any:
    """Return the saved value, in the tensors that live now where they fit."""
    if isinstance(saved, Tensor):
        if isinstance(live, Tensor) and live.shape == saved.shape and live.dtype == saved.dtype:
            live.copy_(saved)
            return live
        # A step count of one number stays on the CPU, as optimizers make it; moments are beside their parameter.
        device = live.device if isinstance(live, Tensor) else _device(saved, parameter)
        return saved.to(device, copy=True)
    if isinstance(saved, dict):
        lives = live if isinstance(live, dict) else {}
        return {key: _put_back(inner, lives.get(key), parameter) for key, inner in saved.items()}
    if type(saved) in (list, tuple):
        pairs = zip(saved, live if _is_like(live, saved) else [None] * len(saved), strict=True)
        return type(saved)(_put_back(inner, now, parameter) for inner, now in pairs)
    return copied(saved)


def _is_like(other: Any, values: Any) -> bool:
    return isinstance(other, list | tuple) and len(other) == len(values)


def _device(saved: Tensor, parameter: Any) -> Any:
    beside = isinstance(parameter, Tensor) and saved.dim() > 0
    return parameter.device if beside else saved.device


def _reset(optimizer: Any, parameter: Any) -> None:
    """Make the state of a parameter that of a new one."""
    if isinstance(optimizer, torch.optim.Adagrad):  # makes it once, and not at the first step
        state = optimizer.state[parameter]
        state["step"].zero_()
        state["sum"].fill_(optimizer.defaults.get("initial_accumulator_value", 0.0))
    else:
        del optimizer.state[parameter]


def _has(optimizer: Any, parameter: Any) -> bool:
    if not isinstance(parameter, Tensor):
        return True  # state that belongs to no parameter
    return any(parameter is other for group in optimizer.param_groups for other in group["params"])


def _first(group: dict[str, Any]) -> Any:
    return next(iter(group["params"]), None)
