"""The training loop."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.errors import DivergedError
from kuber.learning.runtime import Runtime
from kuber.learning.weights import Weights
from kuber.learning.wrappers import plain_name

Batch = tuple[Tensor, ...]  # samples, labels, and further arguments of the loss, row by row
Loss = Callable[..., Tensor]  # (logits, *rest of the batch) -> scalar
Span = tuple[float, float]  # begin and end of a training, in shares of all the entity's own rounds, 0 to 1
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Settings of a training: SGD with momentum at a constant learning rate, or at one that falls to 0."""

    epochs: int
    learning_rate: float  # with a schedule, its peak
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = field(default="constant", metadata={"added_later": True})  # see the result cache

    def rates(self, span: Span | None, samples: int) -> Callable[[int], float] | None:
        """Return a function from the samples done in a training, of so many, to the learning rate of the next step.

        None for a constant rate, as without a span. Else the rate falls from its peak to 0 over all rounds, as half a
        cosine, of which this training is the part in the span: Loshchilov and Hutter, arXiv 1608.03983, equation 5,
        without restarts.
        """
        if span is None or self.schedule == "constant":
            return None
        begin, end = span

        def rate(done: int) -> float:
            share = begin + (end - begin) * min(1.0, done / samples)
            return self.learning_rate * (1 + math.cos(math.pi * share)) / 2

        return rate


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStats:
    """Samples processed by a training, and its last loss."""

    samples: int  # samples trained on, times epochs
    loss: float  # mean over the samples of the last epoch


def train(
    network: nn.Module,
    epoch: Callable[[], Iterable[Batch]],
    *,
    settings: Training,
    runtime: Runtime,
    loss: Loss = F.cross_entropy,
    penalty: Callable[[], Tensor] | None = None,
    rate: Callable[[int], float] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> TrainingStats:
    """Train a network in place with a new optimizer; `epoch` returns the batches of one epoch.

    `penalty` returns a scalar that is added to the loss of each batch. `rate` returns the learning rate of the next
    step, given the number of samples done; without it the rate is constant. `progress` is called after each step with
    that number. Raises DivergedError when the loss of an epoch or, at the end, a weight is not finite.
    """
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    done, mean = 0, 0.0
    for number in range(1, settings.epochs + 1):
        total = torch.zeros((), device=runtime.device)
        seen = 0
        for x, *rest in epoch():
            optimizer.zero_grad(set_to_none=True)
            with runtime.autocast():
                value = loss(network(x).float(), *rest)  # autocast leaves log_softmax on a CPU in bfloat16
            if penalty is not None:
                value = value + penalty()
            value.backward()  # type: ignore[no-untyped-call]
            if rate is not None:
                optimizer.param_groups[0]["lr"] = rate(done + seen)
            optimizer.step()
            total += value.detach() * len(x)
            seen += len(x)
            progress(done + seen)
        done += seen
        # Read once an epoch, because each read makes a GPU wait.
        mean = total.item() / seen
        if not torch.isfinite(total):
            raise DivergedError(
                f"Training diverged in epoch {number}: the loss is {mean}; try a smaller learning_rate."
            )
    # No loss is computed after the last step, so look at the weights.
    if not all(torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise DivergedError(
            "Training diverged in the last epoch: a weight is not finite; try a smaller learning_rate."
        )
    return TrainingStats(samples=done, loss=mean)


def span_of(round: int, rounds: int) -> Span:
    """Return the span of a round, counted from 1, among all the entity's own."""
    return (round - 1) / rounds, round / rounds


def proximal(network: nn.Module, mu: float) -> Callable[[], Tensor]:
    """Return FedProx's penalty: mu/2 times the squared distance to the present weights (arXiv 1812.06127)."""
    pairs = [(parameter, parameter.detach().clone()) for parameter in network.parameters()]
    return lambda: mu / 2 * torch.stack([((now - before) ** 2).sum() for now, before in pairs]).sum()


def linear(network: nn.Module, gradient: Weights) -> Callable[[], Tensor]:
    """Return a penalty with this gradient, by name of the parameter: SCAFFOLD's correction (arXiv 1910.06378).

    Raises KeyError when it lacks a parameter of the network.
    """
    pairs = [(parameter, gradient[plain_name(name)].to(parameter)) for name, parameter in network.named_parameters()]
    return lambda: torch.stack([(parameter * slope).sum() for parameter, slope in pairs]).sum()
