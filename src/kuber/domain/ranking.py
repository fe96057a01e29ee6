"""Order candidates by their evaluation."""

from collections.abc import Collection, Iterable, Sequence

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.query import RECALL_UNIT


def more_accurate(candidates: Iterable[Knowledge], own: Evaluation) -> list[Knowledge]:
    """Return the candidates with a higher verified or claimed accuracy on the same test set, best first.

    Equal accuracies are ordered by age (older first), then by id, so that the order is the same everywhere.
    """
    higher = [
        candidate
        for candidate in candidates
        if candidate.trusted.test_set == own.test_set and candidate.trusted.accuracy > own.accuracy
    ]
    return sorted(higher, key=lambda c: (-c.trusted.accuracy, c.published_at, c.id))


def exclude(candidates: Iterable[Knowledge], refused: Collection[str]) -> list[Knowledge]:
    """Return the candidates whose ids are not among the refused, in their order."""
    return [candidate for candidate in candidates if candidate.id not in refused]


def recalls(evaluation: Evaluation) -> list[int]:
    """Return the recall on each class, in whole millionths; 0 on a class without samples."""
    counts = zip(evaluation.correct, evaluation.total, strict=True)
    return [correct * RECALL_UNIT // total if total else 0 for correct, total in counts]


def recall_rank(evaluation: Evaluation, classes: Sequence[int]) -> int:
    """Return the sum of the recalls on these classes, each in whole millionths; classes without samples count 0."""
    found = recalls(evaluation)
    return sum(found[label] for label in classes if label < len(found))
