"""The network of an owner with the weights of another model of its architecture."""

from typing import Any

from torch import Tensor, nn

from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.evaluation import evaluation_mode
from kuber.learning.model_call import (
    Inputs,
    as_floating,
    batch_size,
    call_model,
    floating_dtype,
    logits_from,
    to_device,
)
from kuber.learning.weights import Weights, swapped_weights


class SwappedNetwork(nn.Module):
    """An owner's module that runs with other weights during each call, and returns logits without gradient.

    So a teacher needs no copy of the module, which may hold what cannot be copied. The module is referred to, not
    registered: `to`, `parameters` and `requires_grad_` of this network do not reach it.
    """

    def __init__(self, module: nn.Module, weights: Weights, *, classes: int, as_given: bool = False) -> None:
        """Use these weights; floating inputs get the module's dtype unless they are taken `as_given`."""
        super().__init__()
        self.training = False
        self.classes = classes
        self._module = [module]  # in a list, which nn.Module does not look into
        self._weights = weights
        self._moved: Weights = {}  # on the module's device; changed in place, so that it lasts
        self._as_given = as_given

    @property
    def parts(self) -> tuple[nn.Module, Weights]:
        """The owner's module, and the weights that it runs with."""
        return self._module[0], self._weights

    def forward(self, *inputs: Any, **named: Tensor) -> Tensor:
        """Return the logits, shape (batch, classes), for what the module takes, or for one `Inputs` value."""
        (module,) = self._module
        value: Inputs = named or (inputs[0] if len(inputs) == 1 else inputs)
        samples = batch_size(value)
        first = _first_tensor(module)
        if first is not None:
            value = to_device(value, first.device)
            self._move(first)
        if not self._as_given:
            value = as_floating(value, floating_dtype(module))
        with swapped_weights(module, self._moved or self._weights), evaluation_mode(module, autocast=True):
            output = call_model(module, value)
        try:
            return logits_from(output, classes=self.classes, samples=samples)
        except SettingsError as error:  # not of the owner's, as it is about another's model
            raise IncompatibleKnowledgeError(error.message) from None

    def _move(self, first: Tensor) -> None:
        """Keep the weights on the module's device, so that a call does not copy them there."""
        if first.device.type != "cpu" and (
            not self._moved or next(iter(self._moved.values())).device != first.device
        ):
            self._moved.update({name: tensor.to(first.device) for name, tensor in self._weights.items()})


def _first_tensor(module: nn.Module) -> Tensor | None:
    return next(module.parameters(), next(module.buffers(), None))
