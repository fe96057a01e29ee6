"""Private validation data: what a record says of the set behind its evaluation."""

from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from kuber.domain.evaluation import Evaluation
from kuber.domain.task import Task

SMALLEST_CELL = 10  # samples of a class, or of all, from which on their counts are published

# How the counts of the classes are published: all as they are; without those below SMALLEST_CELL, which are 0 of 0;
# summed in the cell of the first class, when every class is small; or not at all, as 0 of 1 sample.
Cells = Literal["all", "partial", "pooled", "withheld"]
CELLS: tuple[Cells, ...] = get_args(Cells)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """The publisher's own validation data; their digest and number are in the record's evaluation."""

    since: date  # UTC, of the first evaluation on exactly these data
    cells: Cells = "all"

    def __post_init__(self) -> None:
        if self.cells not in CELLS:
            raise ValueError(f"cells are one of {', '.join(CELLS)}")


def disclosed(evaluation: Evaluation, task: Task) -> tuple[Evaluation, Cells]:
    """Return the counts that may leave the entity, and how they are published.

    A common test set is known to all, and nothing is left out. Of private data no count below SMALLEST_CELL leaves;
    the sum of the counts is that of the classes shown, so that no difference reveals the others.
    """
    if task.test_set is not None:
        return evaluation, "all"
    shown = [total >= SMALLEST_CELL for total in evaluation.total]
    if all(show or not total for show, total in zip(shown, evaluation.total, strict=True)):
        return evaluation, "all"
    empty = (0,) * (len(shown) - 1)
    if any(shown):
        large = tuple(count if show else 0 for count, show in zip(evaluation.total, shown, strict=True))
        return restricted(evaluation, Evaluation(test_set=evaluation.test_set, correct=large, total=large)), "partial"
    if sum(evaluation.total) >= SMALLEST_CELL:
        correct, total = (sum(evaluation.correct), *empty), (sum(evaluation.total), *empty)
        return Evaluation(test_set=evaluation.test_set, correct=correct, total=total), "pooled"
    return Evaluation(test_set=evaluation.test_set, correct=(0, *empty), total=(1, *empty)), "withheld"


def restricted(evaluation: Evaluation, claim: Evaluation) -> Evaluation:
    """Return an evaluation without the classes that a claim does not show; as it is if none would be left."""
    shown = tuple(found if claimed else 0 for found, claimed in zip(evaluation.total, claim.total, strict=False))
    if len(shown) != len(evaluation.total) or not sum(shown):
        return evaluation
    correct = tuple(count if show else 0 for count, show in zip(evaluation.correct, shown, strict=True))
    return Evaluation(test_set=evaluation.test_set, correct=correct, total=shown)
