"""What several evaluations say of each class."""

from collections.abc import Sequence
from statistics import fmean

from kuber.domain.evaluation import Evaluation


def mean_recalls(evaluations: Sequence[Evaluation]) -> list[float | None]:
    """The mean over evaluations, class by class, of those that had samples of it."""
    columns = zip(*(one.recalls for one in evaluations), strict=True)
    told = [[value for value in column if value is not None] for column in columns]
    return [fmean(values) if values else None for values in told]
