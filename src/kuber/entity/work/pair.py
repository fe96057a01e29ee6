"""Work step of a pair: the share of the proxy in the mean of its answer and the private network's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from kuber.domain.evaluation import recalls_of
from kuber.domain.prior import Frequencies, accuracy_on, frequencies, uniform
from kuber.entity.work.learner import Learner
from kuber.entity.work.steps import FORWARD_COST, Progress, Work
from kuber.learning.ensembling import mixture_log_probs
from kuber.learning.evaluation import correct_after, labelled_logits
from kuber.learning.priors import log_ratio
from kuber.learning.weights import Weights

SHARES = (0.5, 0.25, 0.75, 0.0, 1.0)  # of the proxy; the first of equally good ones


@dataclass(frozen=True, kw_only=True, slots=True)
class PairResult:
    """The best share of the proxy, and accuracies on the common test set."""

    share: float
    accuracy: float  # of the pair, general
    own_accuracy: float  # of the pair, on the entity's own mixture of classes
    private_accuracy: float  # of the private network alone, general
    forward: int  # samples that ran forward
    seconds: float


def pair_share(
    proxy: tuple[Learner, Weights],
    private: tuple[Learner, Weights],
    *,
    carried: Frequencies,
    class_counts: Sequence[int],
) -> Work:
    """Return the work of choosing the share of the proxy; the logits of both networks carry a prior."""
    # Without private samples, as in an evaluation of one model.
    (learner, weights), (private_learner, private_weights) = proxy, private
    arguments = {
        "learner": replace(learner, private=learner.common),
        "weights": weights,
        "private_learner": replace(private_learner, private=learner.common),
        "private_weights": private_weights,
        "carried": carried,
        "class_counts": tuple(class_counts),
    }
    return Work(function=choose_share, arguments=arguments, cost=2 * len(learner.common) * FORWARD_COST)


def choose_share(
    learner: Learner,
    weights: Weights,
    *,
    private_learner: Learner,
    private_weights: Weights,
    carried: Frequencies,
    class_counts: tuple[int, ...],
    progress: Progress,
) -> PairResult:
    """Choose the share with which the pair is the most accurate on the common test set, by general accuracy."""
    start = time.perf_counter()
    found = [
        labelled_logits(each.model(model), each.ordered_batches(learner.common), runtime=each.runtime)
        for each, model in ((learner, weights), (private_learner, private_weights))
    ]
    logits, labels = [logits for logits, _ in found], found[0][1]
    total = np.bincount(learner.common.labels, minlength=learner.classes).tolist()
    shifts = torch.stack(
        [log_ratio(carried, target) for target in (uniform(learner.classes), frequencies(class_counts))]
    )
    accuracies: dict[float, tuple[float, float]] = {}  # general and own, by share
    for share in SHARES:
        general, own = correct_after(mixture_log_probs(logits, (share, 1 - share)), labels, shifts).tolist()
        accuracies[share] = sum(general) / sum(total), accuracy_on(class_counts, recalls_of(own, total))
    best = max(SHARES, key=lambda share: accuracies[share][0])
    progress(1.0)
    return PairResult(
        share=best,
        accuracy=accuracies[best][0],
        own_accuracy=accuracies[best][1],
        private_accuracy=accuracies[0.0][0],
        forward=2 * len(learner.common),
        seconds=time.perf_counter() - start,
    )
