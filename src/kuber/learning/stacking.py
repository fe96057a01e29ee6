"""Stacking: a model's answers combined with those of teachers, by weights that are fitted to labelled samples."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.learning.model_call import Inputs, as_floating, call_model

RIDGE = 5.0  # penalty on the distance from the model as it is: so many samples have to speak for a change
STEPS = 100  # at most; Newton's method needs about ten


def combined(own: Tensor, teachers: Sequence[Tensor], weights: Tensor, log_prior: Tensor) -> Tensor:
    """Return the log-linear combination of logits: own, then of each teacher, then the prior, each by its weight.

    Logits have shape (samples, classes), `log_prior` (classes,). For a class that a teacher does not know, its logit
    is minus infinity, the model's own share is taken.
    """
    features = _features(own, teachers, log_prior)
    return torch.stack([weight * feature for weight, feature in zip(weights, features, strict=True)]).sum(0)


def fitted_weights(
    own: Tensor, teachers: Sequence[Tensor], labels: Tensor, log_prior: Tensor, importance: Tensor
) -> Tensor:
    """Return the weights of `combined` that make labels most likely: of the model, the teachers and the prior.

    Stacked generalisation (Wolpert, 1992) by multinomial logistic regression: the likelihood is concave in the few
    weights. `importance`, shape (samples,), multiplies the samples. The penalty RIDGE / 2 * |weights - (1, 0, ..,
    0)|² keeps the model as it is where the samples do not speak against it. A teacher of negative weight gets 0: it
    is left out, and the others are fitted again.
    """
    features = torch.stack(_features(own.double(), [logits.double() for logits in teachers], log_prior.double()))
    kept = list(range(len(features)))
    while True:
        found = _most_likely(features[kept], labels, importance.double())
        negative = [(float(weight), place) for weight, place in zip(found, kept, strict=True) if weight < 0]
        negative = [(weight, place) for weight, place in negative if 0 < place < len(features) - 1]
        if not negative:
            break
        kept.remove(min(negative)[1])
    weights = torch.zeros(len(features))
    weights[kept] = found.float()
    return weights


class Stacked(nn.Module):
    """A network whose logits are the `combined` ones of a model and of teachers."""

    weights: Tensor
    log_prior: Tensor

    def __init__(
        self, own: nn.Module, teachers: Sequence["StackedTeacher"], weights: Tensor, log_prior: Tensor
    ) -> None:
        """`own` returns logits, shape (batch, classes); weights are those of `fitted_weights`."""
        super().__init__()
        self.own = own
        self.teachers = nn.ModuleList(teachers)
        self.register_buffer("weights", weights)
        self.register_buffer("log_prior", log_prior)

    def forward(self, *inputs: Any, **named: Tensor) -> Tensor:
        """Return the combined logits for what the model takes."""
        value: Inputs = named or (inputs[0] if len(inputs) == 1 else inputs)
        own = call_model(self.own, value)
        return combined(own, [teacher(value) for teacher in self.teachers], self.weights, self.log_prior).to(own)


class StackedTeacher(nn.Module):
    """A teacher's network, its answers without its prior, and the dtype that it takes."""

    shift: Tensor

    def __init__(self, network: nn.Module, shift: Tensor, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.register_buffer("shift", shift)

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the logits, shape (batch, classes)."""
        logits: Tensor = call_model(self.network, as_floating(inputs, self.dtype))
        return logits + self.shift.to(logits)


def _features(own: Tensor, teachers: Sequence[Tensor], log_prior: Tensor) -> list[Tensor]:
    """Return log-probabilities of the model and of the teachers, and the prior: each of shape (samples, classes)."""
    mine = F.log_softmax(own, dim=1)
    return [mine, *(_completed(logits.to(mine), mine) for logits in teachers), log_prior.to(mine).expand_as(mine)]


def _completed(logits: Tensor, own: Tensor) -> Tensor:
    """Return a teacher's log-probabilities; classes that it does not know have the own share."""
    unknown = torch.isneginf(logits)
    if not unknown.any():
        return F.log_softmax(logits, dim=1)
    known_mass = own.masked_fill(unknown, -torch.inf).logsumexp(1, keepdim=True)
    return torch.where(unknown, own, known_mass + F.log_softmax(logits, dim=1))


def _most_likely(features: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
    """Return the penalised maximum of the likelihood, by Newton's method; the first feature is the model's."""
    start = torch.zeros(len(features), dtype=features.dtype)
    start[0] = 1.0
    weights = start.clone()
    chosen = features[:, torch.arange(len(labels)), labels]
    for _ in range(STEPS):
        probabilities = torch.einsum("k,knc->nc", weights, features).softmax(1)
        means = torch.einsum("nc,knc->kn", probabilities, features)
        gradient = ((chosen - means) * importance).sum(1) - RIDGE * (weights - start)
        squares = torch.einsum("n,nc,knc,lnc->kl", importance, probabilities, features, features)
        curvature = squares - (means * importance) @ means.T + RIDGE * torch.eye(len(features), dtype=features.dtype)
        step = torch.linalg.solve(curvature, gradient)
        size = float(step.norm())
        weights = weights + step / max(1.0, size)  # short steps far away, where the curvature misleads
        if size < 1e-6:
            break
    return weights
