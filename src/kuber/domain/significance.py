"""Significance of a difference between two evaluations: paired where the answers are known, else by counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, inf, sqrt
from statistics import NormalDist

from kuber.domain.evaluation import Evaluation

CLEAR = 0.05  # accuracy that an entity's newest record may lose against its best one
BEYOND_DOUBT = NormalDist().cdf(3.0)
EXACT = 1000  # disagreements up to which the sign test is exact; beyond, the normal distribution is as good


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedCounts:
    """Answers of two models to the same samples of one class, compared sample by sample."""

    total: int
    lost: int  # samples that only the earlier model answers rightly
    gained: int  # samples that only the later one does

    @property
    def standard_error(self) -> float:
        """Standard error of the difference of the two recalls; 0 without samples.

        It counts one disagreement more than there are: a single sample that flips proves nothing.
        """
        if not self.total:
            return 0.0
        squared = self.lost + self.gained + 1 - (self.lost - self.gained) ** 2 / self.total
        return sqrt(max(0.0, squared)) / self.total


def paired_counts(before: Evaluation, after: Evaluation) -> tuple[PairedCounts, ...] | None:
    """Return the paired counts of each class; None unless both know their answers to the same samples."""
    if before.right is None or after.right is None or not are_comparable(before, after):
        return None
    return tuple(
        PairedCounts(total=total, lost=(then & ~now).bit_count(), gained=(now & ~then).bit_count())
        for total, then, now in zip(before.total, before.right, after.right, strict=True)
    )


def are_comparable(before: Evaluation, after: Evaluation) -> bool:
    """Return whether two evaluations are of the same samples."""
    return before.test_set == after.test_set and before.total == after.total


def sign_test(lost: int, gained: int) -> float:
    """Return how probable so many losses are, if losses and gains are equally likely.

    McNemar's exact test, of one side.
    """
    count = lost + gained
    if count <= EXACT:
        ways: int = sum(comb(count, number) for number in range(lost, count + 1))
        return float(ways / 2**count)
    return 1.0 - NormalDist().cdf((lost - gained - 1) / sqrt(count))


def has_fallen(before: Evaluation, after: Evaluation, label: int, *, confidence: float) -> bool:
    """Return whether the recall on a class is lower in the later evaluation, with this confidence."""
    pairs = paired_counts(before, after)
    if pairs is not None:
        return is_significant_loss(pairs[label], confidence)
    then, now = (before.correct[label], before.total[label]), (after.correct[label], after.total[label])
    return least_loss(then, now, confidence=confidence) > 0


def accuracy_has_fallen(before: Evaluation, after: Evaluation, *, confidence: float) -> bool:
    """Return whether accuracy is lower in the later evaluation, with this confidence."""
    pairs = paired_counts(before, after)
    if pairs is not None:
        return is_significant_loss(pooled(pairs), confidence)
    return least_loss(proportion(before), proportion(after), confidence=confidence) > 0


def advantages(theirs: Evaluation, ours: Evaluation) -> tuple[float, ...]:
    """Return how far their recall on each class is ahead of ours; 0 where it is not, or is not known."""
    pairs = zip(theirs.recalls, ours.recalls, strict=True)
    return tuple(0.0 if their is None or our is None else max(0.0, their - our) for their, our in pairs)


def pooled(pairs: Sequence[PairedCounts]) -> PairedCounts:
    """Return the paired counts of all classes together."""
    return PairedCounts(
        total=sum(pair.total for pair in pairs),
        lost=sum(pair.lost for pair in pairs),
        gained=sum(pair.gained for pair in pairs),
    )


def is_significant_loss(pair: PairedCounts, confidence: float) -> bool:
    """Return whether more samples are lost than gained, by more than chance explains."""
    return pair.lost > pair.gained and sign_test(pair.lost, pair.gained) < 1 - confidence


def wilson_interval(correct: float, total: int, *, deviations: float) -> tuple[float, float]:
    """Return the bounds of a proportion, `deviations` standard errors to each side; 0 and 1 without samples.

    Wilson, 1927: unlike the usual interval it is never empty, and right for few samples.
    """
    if not total:
        return 0.0, 1.0
    share, squared = correct / total, deviations**2
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    half = deviations / (1 + squared / total) * sqrt(share * (1 - share) / total + squared / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def least_loss(before: tuple[float, int], after: tuple[float, int], *, confidence: float) -> float:
    """Return the lower bound of the loss from one proportion to another; -inf without samples.

    Both are (correct, total). Newcombe's interval of a difference, made of two of Wilson's (1998, method 10).
    """
    if not before[1] or not after[1]:
        return -inf
    deviations = deviations_for(confidence)
    then, now = before[0] / before[1], after[0] / after[1]
    low = wilson_interval(*before, deviations=deviations)[0]
    high = wilson_interval(*after, deviations=deviations)[1]
    return then - now - sqrt((then - low) ** 2 + (high - now) ** 2)


def proportion(evaluation: Evaluation) -> tuple[int, int]:
    """Return how many answers are right, and of how many samples."""
    return sum(evaluation.correct), sum(evaluation.total)


def is_clearly_worse(before: tuple[float, int], after: tuple[float, int]) -> bool:
    """Return whether accuracy, given as (correct, total), has fallen by more than CLEAR beyond any doubt.

    A few points of difference are usual between two rounds; this one means that a model has collapsed.
    """
    return least_loss(before, after, confidence=BEYOND_DOUBT) > CLEAR


@lru_cache(maxsize=64)
def deviations_for(confidence: float) -> float:
    """Return the number of standard errors of a one-sided bound with this confidence."""
    return NormalDist().inv_cdf(confidence)
