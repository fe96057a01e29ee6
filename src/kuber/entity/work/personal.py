"""Work step of the own answer: a deployed model with a personal head, if that is better on the own mixture."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kuber.domain.evaluation import recalls_of
from kuber.domain.prior import Frequencies, accuracy_on, frequencies
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import FORWARD_COST, Progress, Work
from kuber.learning.evaluation import correct_after, labelled_logits
from kuber.learning.personal_head import features, final_layer, personal_head
from kuber.learning.priors import candidate_shifts, log_ratio
from kuber.learning.weights import Weights

PASSES = 2  # over the private samples, augmented
SEED = 0  # of their augmentation, so that training draws the same numbers as without


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonalResult:
    """A personal model, if it is better, and the own accuracies on the common test set without it and with it."""

    weights: Weights | None  # with logits of the entity's own prior; None if it is no better, or there is none
    before: float
    after: float
    forward: int  # samples that ran forward
    seconds: float


def personal_model(learner: Learner, weights: Weights, *, carried: Frequencies, class_counts: Sequence[int]) -> Work:
    """Return the work of giving a model, whose logits carry a prior, a personal head."""
    arguments = {"learner": learner, "weights": weights, "carried": carried, "class_counts": tuple(class_counts)}
    forward = PASSES * len(learner.private) + 2 * len(learner.common)
    return Work(function=personalise, arguments=arguments, cost=forward * FORWARD_COST)


def personalise(
    learner: Learner,
    weights: Weights,
    *,
    carried: Frequencies,
    class_counts: tuple[int, ...],
    progress: Progress,
) -> PersonalResult:
    """Train a personal head on private samples; keep it if it is better on the common test set, by own accuracy.

    The model as it is has the entity's prior in place of that which its logits carry, or of a power of that.
    """
    start = time.perf_counter()
    network, own = learner.model(weights), frequencies(class_counts)

    def own_accuracies(shifts: torch.Tensor) -> list[float]:
        counts = correct_after(
            *labelled_logits(network, learner.ordered_batches(learner.common), runtime=learner.runtime), shifts
        )
        return [accuracy_on(class_counts, recalls_of(of_shift, total)) for of_shift in counts.tolist()]

    total = np.bincount(learner.common.labels, minlength=learner.classes).tolist()
    before = max(own_accuracies(candidate_shifts(carried, own)))
    forward = len(learner.common)
    final = final_layer(network, next(learner.ordered_batches(learner.common))[0][:1])
    personal, after = None, before
    if final is not None:
        draws = torch.Generator().manual_seed(SEED)
        batches = (batch for _ in range(PASSES) for batch in learner.training_batches(draws))
        given, labels = features(network, final, batches, runtime=learner.runtime)
        bias = final.layer.bias.detach().cpu() + log_ratio(carried, own)
        head = personal_head(given, labels, final.layer.weight.detach().cpu(), bias)
        with torch.no_grad():
            final.layer.weight.copy_(head[0])
            final.layer.bias.copy_(head[1])
        (after,) = own_accuracies(torch.zeros(1, learner.classes))
        forward += PASSES * len(learner.private) + len(learner.common)
        if after > before:
            personal = dict(weights) | {f"{final.name}.weight": head[0], f"{final.name}.bias": head[1]}
    progress(1.0)
    return PersonalResult(
        weights=personal, before=before, after=after, forward=forward, seconds=time.perf_counter() - start
    )
