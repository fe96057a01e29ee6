"""Which candidates to learn from, best first."""

from collections.abc import Collection, Iterable, Sequence

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.query import RECALL_UNIT


def better(candidates: Iterable[Knowledge], own: Evaluation) -> list[Knowledge]:
    """The candidates that are better than we are on the same test set, as verified or else as claimed; best first.

    Equal claims are ordered by age (older first), then by id, so that every reader ranks them alike.
    """
    higher = [
        candidate
        for candidate in candidates
        if candidate.trusted.test_set == own.test_set and candidate.trusted.accuracy > own.accuracy
    ]
    return sorted(higher, key=lambda c: (-c.trusted.accuracy, c.published_at, c.id))


def without(candidates: Iterable[Knowledge], refused: Collection[str]) -> list[Knowledge]:
    """The candidates that we have not found unsound before, in their order."""
    return [candidate for candidate in candidates if candidate.id not in refused]


def recall_rank(evaluation: Evaluation, classes: Sequence[int]) -> int:
    """The sum of the recalls on these classes, each in whole millionths; a class without samples adds nothing."""
    counts = [
        (evaluation.correct[label], evaluation.total[label]) for label in classes if label < len(evaluation.total)
    ]
    return sum(correct * RECALL_UNIT // total for correct, total in counts if total)
