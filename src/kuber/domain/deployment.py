"""Deployed model: the best of the last round's model, an earlier one and an average, on data its owner may read."""

from dataclasses import dataclass
from typing import Literal, get_args

from kuber.domain.evaluation import Evaluation

AVERAGED = 3  # rounds at whose ends the averaged models were current

Choice = Literal["last", "best", "average"]  # of the round that ends, of an earlier round, or an average of several
CHOICES: tuple[Choice, ...] = get_args(Choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployed:
    """A model that an entity would use: that at the end of a round, or the average of the last few up to it."""

    round: int
    evaluation: Evaluation  # on the common test set
    averaged: bool = False

    def choice(self, round: int) -> Choice:
        """Return which model this is at the end of a round."""
        if self.averaged:
            return "average"
        return "last" if self.round == round else "best"


def deploy(before: Deployed | None, last: Deployed, average: Deployed | None) -> Deployed:
    """Choose the most accurate of the model deployed `before`, the `last` and the `average`; the newer of equals.

    An earlier choice that was evaluated on another test set cannot be compared and is dropped.
    """
    candidates = [last] if average is None else [last, average]  # the average is of older models, too
    if before is not None and before.evaluation.test_set == last.evaluation.test_set:
        candidates.append(before)
    return max(candidates, key=lambda candidate: candidate.evaluation.accuracy)  # the first of equals
