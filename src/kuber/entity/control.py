"""Control: a copy of an owner's model that trains without teachers beside it, so that both can be compared."""

import copy
import json
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kuber.domain.joining_report import JoiningReport
from kuber.errors import CorruptKnowledgeError, SettingsError, first_line
from kuber.files import write_atomically
from kuber.learning.evaluation import training_mode
from kuber.learning.random_state import kept_random_state
from kuber.learning.weights import load_weights, weights_of

FILE_NAME = "control.safetensors"
_MODEL, _OPTIMIZER = "model.", "optimizer."  # prefixes of the tensors

ADVICE = "train a second model without an entity yourself, and call entity.report(alone=model)"


class Control:
    """A twin of the owner's model, trained on the same batches with the same random numbers, without teachers."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Any], path: Path) -> None:
        """Copy model and optimizers, or resume from the file. Raises SettingsError when there can be no copy."""
        reason = _obstacle(model)
        if reason is not None:
            raise SettingsError(f"control is not possible: {reason}; {ADVICE}.")
        try:
            # The memory is one, so that the copied optimizers train the copied model; what is hooked to an optimizer,
            # such as a scheduler, is not among what it copies.
            self.model, self._optimizers = copy.deepcopy((model, list(optimizers)))
        except Exception as error:
            raise SettingsError(
                f"control is not possible: the model cannot be copied ({type(error).__name__}: {first_line(error)}); "
                f"{ADVICE}."
            ) from error
        if {id(weight) for weight in self.model.parameters()} & {id(weight) for weight in model.parameters()}:
            raise SettingsError(f"control is not possible: a copy of the model shares its parameters; {ADVICE}.")
        self._followed = list(optimizers)
        self._path = path
        self.rounds = 0  # trained and compared
        if path.exists():
            self._resume()

    def step(self, loss: Callable[[nn.Module], Tensor]) -> None:
        """Train one batch, before the owner's model does and with the random numbers that it will get."""
        self._follow()
        with kept_random_state(), training_mode(self.model):

            def closure() -> Tensor:
                total = loss(self.model)
                for optimizer in self._optimizers:
                    optimizer.zero_grad()
                total.backward()  # type: ignore[no-untyped-call]
                return total

            first = self._optimizers[0]
            if isinstance(first, torch.optim.LBFGS):
                first.step(closure)  # type: ignore[no-untyped-call]
                return
            closure()
            for optimizer in self._optimizers:
                optimizer.step()

    def save(self, report: JoiningReport) -> None:
        """Store the twin and the report after a round, so that another process resumes."""
        self.rounds = report.rounds
        tensors = {f"{_MODEL}{name}": tensor for name, tensor in weights_of(self.model).items()}
        numbers: dict[str, Any] = {}
        for place, optimizer in enumerate(self._optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                for name, value in values.items():
                    key = f"{_OPTIMIZER}{place}.{index}.{name}"
                    if isinstance(value, Tensor):
                        tensors[key] = value.detach().cpu().clone().contiguous()
                    elif value is None or isinstance(value, bool | int | float | str):
                        numbers[key] = value
        state = json.dumps({"report": report.as_dict(), "numbers": numbers})
        write_atomically(self._path, save(tensors, metadata={"state": state}))

    def _follow(self) -> None:
        """Take over the learning rates and the like, which a schedule of the owner's changes."""
        for own, owners in zip(self._optimizers, self._followed, strict=True):
            if len(own.param_groups) != len(owners.param_groups):
                raise SettingsError(f"control ends: the optimizer has other groups than at the start; {ADVICE}.")
            for group, given in zip(own.param_groups, owners.param_groups, strict=True):
                group.update({name: copy.copy(value) for name, value in given.items() if name != "params"})

    def _resume(self) -> None:
        report, numbers, tensors = _read(self._path)
        weights = {name.removeprefix(_MODEL): found for name, found in tensors.items() if name.startswith(_MODEL)}
        load_weights(self.model, weights)
        states: list[dict[int, dict[str, Any]]] = [{} for _ in self._optimizers]
        for key, value in (*tensors.items(), *numbers.items()):
            if key.startswith(_OPTIMIZER):
                place, index, name = key.removeprefix(_OPTIMIZER).split(".", 2)
                states[int(place)].setdefault(int(index), {})[name] = value
        for optimizer, owners, state in zip(self._optimizers, self._followed, states, strict=True):
            if owners.state:  # else the owner has begun with a new optimizer, and so does the twin
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.rounds = report.rounds


def stored_report(path: Path) -> JoiningReport | None:
    """Return the report of the last compared round; None if there is none. Raises CorruptKnowledgeError."""
    return _read(path)[0] if path.exists() else None


def _read(path: Path) -> tuple[JoiningReport, dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return JoiningReport.from_dict(state["report"]), state["numbers"], tensors
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptKnowledgeError(
            f"The file {path} of the control cannot be read ({first_line(error)}); remove it."
        ) from None


def _obstacle(model: nn.Module) -> str | None:
    """Return why a copy of the model could disturb the model itself; None if it cannot."""
    for module in model.modules():
        if "forward" in vars(module):
            return "a module has a forward of its own, which a copy would call on the model itself"
        hooks = (
            *module._forward_hooks.values(),
            *module._forward_pre_hooks.values(),
            *module._backward_hooks.values(),
        )
        if any(isinstance(hook, types.FunctionType | types.MethodType) for hook in hooks):
            return "a module has hooks, which a copy would call too"
    if any(weight._backward_hooks for weight in model.parameters()):
        return "a parameter has hooks, which a copy would call too"
    return None
