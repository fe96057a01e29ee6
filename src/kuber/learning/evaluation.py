"""Running a network forward: its logits, and how often they are right."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.learning.runtime import Runtime

EVALUATION_BATCH = 128  # samples; larger batches leave the cache of a core and are slower


@torch.inference_mode()
def logits(network: nn.Module, batches: Iterable[tuple[Tensor, ...]], *, runtime: Runtime) -> Tensor:
    """What the network says about every sample: float32 of shape (samples, classes), on the CPU."""
    network.eval()
    rows = []
    for x, _ in batches:
        with runtime.autocast():
            rows.append(network(x).float().cpu())
    return torch.cat(rows).clone()


@torch.inference_mode()
def evaluate(
    network: nn.Module, batches: Iterable[tuple[Tensor, ...]], *, classes: int, test_set: Digest, runtime: Runtime
) -> Evaluation:
    """Counts of correct answers per class on a test set whose digest is `test_set`."""
    network.eval()
    correct = torch.zeros(classes, dtype=torch.int64, device=runtime.device)
    total = torch.zeros_like(correct)
    for x, y in batches:
        with runtime.autocast():
            right = network(x).argmax(1) == y
        total += torch.bincount(y, minlength=classes)
        correct += torch.bincount(y[right], minlength=classes)
    return Evaluation(test_set=test_set, correct=tuple(correct.tolist()), total=tuple(total.tolist()))
