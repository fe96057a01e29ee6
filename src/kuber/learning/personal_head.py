"""Personal heads: the last layer of a network, trained again on an entity's own samples with their frequencies."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.learning.evaluation import evaluation_mode
from kuber.learning.runtime import Runtime

PENALTY = (
    3e-4  # on the squared distance to the head as it is; measured on seed 6: from 1e-5 to 1e-3 within 0.4 points
)
STEPS = 40  # of L-BFGS, at most


class FinalLayer(NamedTuple):
    """The linear layer whose output is that of its network."""

    name: str
    layer: nn.Linear


def final_layer(network: nn.Module, batch: Tensor) -> FinalLayer | None:
    """Return the linear layer, with a bias, that makes the logits of a batch; None if another module makes them."""
    outputs: dict[str, Tensor] = {}
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    with _hooks(layers, lambda name, _, output: outputs.update({name: output})), evaluation_mode(network):
        logits = network(batch)
    found = [name for name, output in outputs.items() if output is logits and layers[name].bias is not None]
    return FinalLayer(found[0], layers[found[0]]) if len(found) == 1 else None


def features(
    network: nn.Module, final: FinalLayer, batches: Iterable[tuple[Tensor, ...]], *, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Return the inputs of the final layer, float32 of shape (samples, features), and the labels, on the CPU."""
    found: list[Tensor] = []
    labels = []
    keep = {final.name: final.layer}
    with _hooks(keep, lambda _, given, __: found.append(given.float().cpu())), evaluation_mode(network):
        for x, y, *_ in batches:
            with runtime.autocast():
                network(x)
            labels.append(y.cpu())
    return torch.cat(found), torch.cat(labels)


def personal_head(given: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a head that is trained on these features, shape (samples, features), from a start.

    Cross-entropy is minimised, so the logits carry the prior of the samples; give a bias that does. The penalty
    PENALTY * |head - start|² keeps what the samples do not speak against. As the personal predictor of Chen and Chao,
    arXiv 2107.00778, on features that stay as they are: those of a model that many entities have trained.
    """
    x, start = given.double(), torch.cat([weight, bias[:, None]], dim=1).double().cpu()
    head = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([head], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ head[:, :-1].T + head[:, -1], labels) + PENALTY * ((head - start) ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    trained = head.detach().to(weight.dtype)
    return trained[:, :-1].contiguous(), trained[:, -1].contiguous()


@contextmanager
def _hooks(layers: Mapping[str, nn.Linear], act: Callable[[str, Tensor, Tensor], Any]) -> Iterator[None]:
    """Call `act` with the name, the input and the output of these layers at each forward pass."""
    handles = [
        layer.register_forward_hook(lambda _, given, output, name=name: act(name, given[0].detach(), output))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
