"""Accuracy on each class, from counts."""

from collections.abc import Sequence
from statistics import fmean

from kuber.domain.evaluation import Evaluation


def recalls_of(correct: Sequence[int], total: Sequence[int]) -> list[float | None]:
    """The share of correct answers in each class; None for a class without samples."""
    return [right / all_ if all_ else None for right, all_ in zip(correct, total, strict=True)]


def mean_recalls(evaluations: Sequence[Evaluation]) -> list[float | None]:
    """The mean over evaluations, class by class, of those that had samples of it."""
    columns = zip(*(one.recalls for one in evaluations), strict=True)
    told = [[value for value in column if value is not None] for column in columns]
    return [fmean(values) if values else None for values in told]
