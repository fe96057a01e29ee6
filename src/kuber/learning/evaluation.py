"""Running a network forward: its logits, and how often they are right."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.errors import CorruptKnowledgeError
from kuber.learning.runtime import Runtime

_NONSENSE = "The network answers with values that are not finite; do not learn from it."
EVALUATION_BATCH = 128  # samples; quickest on a core: 64 and 256 measured 15 per cent slower, 512 measured 38


@torch.no_grad()  # not inference_mode: a student's loss could not be differentiated around what comes out
def logits(network: nn.Module, batches: Iterable[tuple[Tensor, ...]], *, runtime: Runtime) -> Tensor:
    """What the network says about every sample: float32 of shape (samples, classes), on the CPU.

    Raises CorruptKnowledgeError when it says what is no finite number: sound weights may be too large all the same.
    """
    rows = []
    with _evaluating(network):
        for x, *_ in batches:
            with runtime.autocast():
                rows.append(network(x).float().cpu())
    said = torch.cat(rows)
    if not has_valid_logits(said):
        raise CorruptKnowledgeError(_NONSENSE)
    return said


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    classes: int,
    test_set: Digest,
    runtime: Runtime,
    strict: bool = False,
) -> Evaluation:
    """Counts of correct answers per class on a test set whose digest is `test_set`.

    With `strict`, for models of others, CorruptKnowledgeError is raised when an answer is no finite number.
    The forward pass has the precision of training: see docs/learning.md for what bfloat16 does to the counts.
    """
    correct = torch.zeros(classes, dtype=torch.int64, device=runtime.device)
    total = torch.zeros_like(correct)
    with _evaluating(network):
        for x, y, *_ in batches:
            with runtime.autocast():
                said = network(x)
            if strict and not has_valid_logits(said):
                raise CorruptKnowledgeError(_NONSENSE)
            right = said.argmax(1) == y
            total += torch.bincount(y, minlength=classes)
            correct += torch.bincount(y[right], minlength=classes)
    return Evaluation(test_set=test_set, correct=tuple(correct.tolist()), total=tuple(total.tolist()))


def has_valid_logits(said: Tensor) -> bool:
    """Whether logits, shape (samples, classes), are numbers; minus infinity is said of a class that is not known."""
    return bool(((said < torch.inf) & (said.amax(1, keepdim=True) > -torch.inf)).all())


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode, and then in the mode it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
