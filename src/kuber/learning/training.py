"""The training loop."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.errors import DivergedError
from kuber.learning.runtime import Runtime

Batch = tuple[Tensor, ...]  # samples, labels, and further arguments of the loss, row by row
Loss = Callable[..., Tensor]  # (logits, *rest of the batch) -> scalar


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Settings of a training: SGD with momentum at a constant learning rate."""

    epochs: int
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 5e-4


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
    progress: Callable[[int], None] = lambda _: None,
) -> TrainingStats:
    """Train a network in place with a new optimizer; `epoch` returns the batches of one epoch.

    `penalty` returns a scalar that is added to the loss of each batch. `progress` is called after each step with the
    number of samples done. Raises DivergedError when the loss of an epoch or, at the end, a weight is not finite.
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


def proximal(network: nn.Module, mu: float) -> Callable[[], Tensor]:
    """Return FedProx's penalty: mu/2 times the squared distance to the present weights (arXiv 1812.06127)."""
    pairs = [(parameter, parameter.detach().clone()) for parameter in network.parameters()]
    return lambda: mu / 2 * torch.stack([((now - before) ** 2).sum() for now, before in pairs]).sum()
