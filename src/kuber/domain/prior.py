"""Priors: class frequencies, and which of them the logits of a model carry."""

from collections.abc import Sequence
from math import exp, fsum, isfinite, log

from kuber.domain.strategy import LocalPhase

Frequencies = tuple[float, ...]  # of each class, positive, summing to 1

POWERS = (1.0, 0.5, 0.0)  # of the prior that the logits of plain models carry; others have taught them
SMOOTHING = 1.0  # samples added to each class: Laplace's rule of succession


def frequencies(counts: Sequence[float], *, smoothing: float = SMOOTHING) -> Frequencies:
    """Return the frequency of each class among samples with these counts, `smoothing` samples added to each class.

    So absent classes are possible too: without, their logits would be adjusted by infinity. Raises ValueError
    without classes, and when a count is negative, or the smoothing not positive while a class has no samples.
    """
    smoothed = [count + smoothing for count in counts]
    if not smoothed or any(count < 0 for count in counts) or not all(0 < value < float("inf") for value in smoothed):
        raise ValueError("frequencies need a count of at least 0 for each class, and a positive smoothing")
    total = fsum(smoothed)
    return tuple(value / total for value in smoothed)


def uniform(classes: int) -> Frequencies:
    """Return equal frequencies of so many classes."""
    if classes < 1:
        raise ValueError("frequencies need at least one class")
    return (1 / classes,) * classes


def mixture(parts: Sequence[Frequencies], weights: Sequence[float]) -> Frequencies:
    """Return the weighted mean of frequencies: what merged models carry, with the weights of the merge.

    Raises ValueError without parts, for different numbers of classes, and for weights that are negative or sum to 0.
    """
    total = fsum(weights)
    if not parts or len({len(part) for part in parts}) != 1 or len(parts) != len(weights):
        raise ValueError("a mixture needs frequencies of equally many classes, and a weight for each")
    if not (isfinite(total) and total > 0) or any(weight < 0 for weight in weights):
        raise ValueError("the weights of a mixture must be at least 0, and not all 0")
    return tuple(
        fsum(weight * share for weight, share in zip(weights, column, strict=True)) / total
        for column in zip(*parts, strict=True)
    )


def geometric_mean(parts: Sequence[Frequencies]) -> Frequencies:
    """Return the normalised geometric mean of frequencies: what the mean of several models' logits carries.

    Raises ValueError without parts and for different numbers of classes.
    """
    if not parts or len({len(part) for part in parts}) != 1:
        raise ValueError("a mean needs frequencies of equally many classes")
    means = [exp(fsum(map(log, column)) / len(parts)) for column in zip(*parts, strict=True)]
    total = fsum(means)
    return tuple(mean / total for mean in means)


def carried_prior(phase: LocalPhase, class_counts: Sequence[int]) -> Frequencies:
    """Return the prior that logits carry after a local phase on samples with these class counts.

    Cross-entropy trains logits that contain the log frequencies of the training samples; balanced softmax adds
    these in the loss, so its logits contain those of equally frequent classes.
    """
    return uniform(len(class_counts)) if phase.loss == "balanced-softmax" else frequencies(class_counts)


def accuracy_on(class_counts: Sequence[int], recalls: Sequence[float | None]) -> float:
    """Return the accuracy on a mixture of classes: the mean of the recalls, weighted by these counts.

    A class of unknown recall is left out; when none that is known counts, all that are known count alike.
    """
    known = [(recall, count) for recall, count in zip(recalls, class_counts, strict=True) if recall is not None]
    total = sum(count for _, count in known)
    if total == 0:
        return fsum(recall for recall, _ in known) / len(known)
    return sum(recall * count for recall, count in known) / total
