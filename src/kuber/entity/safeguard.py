"""Guard of an owner's training: failures of KUber are held back, and modes, gradients and random states kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from kuber.entity.hub.alerts import Alerts
from kuber.errors import SettingsError
from kuber.learning.random_state import kept_random_state

T = TypeVar("T")


class Safeguard:
    """Calls what may fail: a failure becomes an event and a warning, and the training continues."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._worked: set[str] = set()  # actions that have not failed once

    def call(
        self,
        action: str,
        function: Callable[[], T],
        default: T,
        *,
        checks_arguments: bool = False,
        passes: tuple[type[Exception], ...] = (),
    ) -> T:
        """Return the result of a function; when it fails, alert that `action` failed, and return the default.

        Errors of the classes `passes` are the caller's to handle.

        With `checks_arguments` a SettingsError passes until the action has worked once: then the owner passed in
        something wrong, and learns so at the start of the training.
        """
        try:
            result = function()
        except passes:
            raise
        except Exception as error:
            if isinstance(error, SettingsError) and checks_arguments and action not in self._worked:
                raise
            self.failed(action, error)
            return default
        self._worked.add(action)
        return result

    def failed(self, action: str, error: BaseException) -> None:
        """Alert that an action failed."""
        self._alerts.failed(action, error)


@contextmanager
def undisturbed(*modules: nn.Module) -> Iterator[None]:
    """Leave modes, gradients and casts of modules, and the random generators, as they are, also on an exception."""
    parts = {id(part): part for module in modules for part in module.modules()}.values()
    modes = [(part, part.training) for part in parts if hasattr(part, "training")]
    parameters = {id(weight): weight for module in modules for weight in module.parameters()}.values()
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters]
    kinds = ["cpu", *{parameter.device.type for parameter in parameters if parameter.device.type != "cpu"}]
    kinds = [kind for kind in kinds if torch.amp.is_autocast_available(kind)]
    casts = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    with_gradients = torch.is_grad_enabled()
    with kept_random_state(), torch.inference_mode(False):
        try:
            yield
        finally:
            torch.set_grad_enabled(with_gradients)
            for kind, enabled, dtype in casts:
                torch.set_autocast_enabled(kind, enabled)
                torch.set_autocast_dtype(kind, dtype)
            for part, training in modes:
                if part.training != training:
                    part.training = training
            for parameter, wanted, gradient in states:
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)
                if parameter.grad is not gradient:
                    parameter.grad = gradient
