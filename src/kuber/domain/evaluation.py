"""Evaluation of a model on one test set: counts per class, accuracy and recalls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import fmean

from kuber.domain.digest import Digest
from kuber.domain.whole_numbers import counts_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Counts of correct answers on one test set, per class in the task's order.

    Counts rather than ratios: two evaluations on the same set compare exactly, and a claim can be bounded.
    Counts may be of numpy or torch. Raises ValueError for impossible counts.

    `right` has one number for each class, whose bit i is set if the i-th sample of that class, in the order of the
    test set, is answered rightly. It never leaves the entity: records, reports and attestations have the counts only.
    """

    test_set: Digest
    correct: tuple[int, ...]
    total: tuple[int, ...]
    right: tuple[int, ...] | None = field(default=None, compare=False, repr=False)  # None if it is not known

    def __post_init__(self) -> None:
        for name in ("correct", "total"):
            given = getattr(self, name)
            if type(given) is not tuple or not all(type(count) is int for count in given):
                counts = counts_of(given)
                if counts is None:
                    raise ValueError(f"the {name} counts of an evaluation must be whole numbers from 0")
                object.__setattr__(self, name, counts)
        if len(self.correct) != len(self.total) or not self.total:
            raise ValueError("an evaluation has one correct and one total count for each class")
        if any(c < 0 or c > t for c, t in zip(self.correct, self.total, strict=True)):
            raise ValueError("correct counts must be between 0 and the number of samples of the class")
        if sum(self.total) == 0:
            raise ValueError("an evaluation needs at least one sample")
        if self.right is not None and not self._fits(self.right):
            raise ValueError("the right answers must be as many as the correct counts, of the samples of each class")

    def __repr__(self) -> str:
        correct, total = sum(self.correct), sum(self.total)
        counts = f"{100 * self.accuracy:.1f} %, {correct:,} of {total:,} samples in {len(self.total)} classes"
        return f"<Evaluation: {counts}, test set {self.test_set}>"

    def _fits(self, right: tuple[int, ...]) -> bool:
        return len(right) == len(self.total) and all(
            bits >= 0 and bits.bit_count() == correct and bits.bit_length() <= total
            for bits, correct, total in zip(right, self.correct, self.total, strict=True)
        )

    @property
    def accuracy(self) -> float:
        """Share of correct answers over all samples, 0 to 1."""
        return sum(self.correct) / sum(self.total)

    @property
    def recalls(self) -> tuple[float | None, ...]:
        """Share of correct answers in each class; None for a class without samples."""
        return recalls_of(self.correct, self.total)


def recalls_of(correct: Iterable[int], total: Iterable[int]) -> tuple[float | None, ...]:
    """Return the share of correct answers in each class; None for a class without samples."""
    return tuple(c / t if t else None for c, t in zip(correct, total, strict=True))


def mean_recalls(recalls: Iterable[Sequence[float | None]]) -> list[float | None]:
    """Return the mean recall of each class, over the models of which it is known; None if it is known of none."""
    known = [[value for value in column if value is not None] for column in zip_longest(*recalls)]
    return [fmean(values) if values else None for values in known]
