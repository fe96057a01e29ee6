"""Claims checked by others: attestations of entities, verifications of the hub."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import sqrt

from kuber.domain.evaluation import Evaluation

Z = 2.326  # one-sided 99 % quantile of the normal distribution


class Standing(StrEnum):
    """Standing of a record: the hub's finding, or its operator's decision."""

    VERIFIED = "verified"  # the claim agrees with the hub's evaluation
    UNVERIFIABLE = "unverifiable"  # the hub cannot run it
    QUARANTINED = "quarantined"  # claims too much, is harmful, or by the operator; no longer discovered


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """The hub's verification of a record."""

    standing: Standing
    reason: str  # one sentence, of the verifier or of the operator who quarantined
    evaluation: Evaluation | None = None  # the hub's, on the task's test set or a set of its own

    def __post_init__(self) -> None:
        if self.standing is Standing.VERIFIED and self.evaluation is None:
            raise ValueError("a verified record needs an evaluation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attestation:
    """An entity's own evaluation of another entity's knowledge."""

    entity: str  # id
    evaluation: Evaluation
    at: datetime


def upper_bound(evaluation: Evaluation) -> float:
    """Return the accuracy that a model with these counts exceeds with a probability of at most 1 %.

    The upper end of Wilson's score interval (J. Am. Stat. Assoc. 22, 1927).
    """
    n = sum(evaluation.total)
    p = evaluation.accuracy
    centre = p + Z**2 / (2 * n)
    spread = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return min(1.0, (centre + spread) / (1 + Z**2 / n))


def verdict(claimed: Evaluation, found: Evaluation) -> Verification:
    """Return the verification of a claim by an evaluation of the hub's."""
    if claimed.test_set == found.test_set and claimed.total != found.total:
        reason = "It claims other numbers of samples than the classes of the common test set have."
        return Verification(standing=Standing.QUARANTINED, reason=reason, evaluation=found)
    bound = upper_bound(found)
    if claimed.accuracy > bound:
        reason = (
            f"It claims an accuracy of {claimed.accuracy:.3f}; the hub measured {found.accuracy:.3f}, which allows "
            f"at most {bound:.3f}."
        )
        return Verification(standing=Standing.QUARANTINED, reason=reason, evaluation=found)
    reason = f"The hub measured an accuracy of {found.accuracy:.3f}."
    return Verification(standing=Standing.VERIFIED, reason=reason, evaluation=found)
