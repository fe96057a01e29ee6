"""What others found out about a claim: entities attest, the hub verifies."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import sqrt

from kuber.domain.evaluation import Evaluation

Z = 2.326  # of the normal distribution: one side, 99 per cent


class Standing(StrEnum):
    """What the hub found out about a record, or its operator decided."""

    VERIFIED = "verified"  # the claim may be true
    UNVERIFIABLE = "unverifiable"  # the hub cannot run it
    QUARANTINED = "quarantined"  # it claims too much, harms who runs it, or the operator says so; found no more


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """The hub's finding about one record."""

    standing: Standing
    reason: str  # one sentence; the operator's, where the operator quarantined
    evaluation: Evaluation | None = None  # what the hub found, on the task's test set or one of its own

    def __post_init__(self) -> None:
        if self.standing is Standing.VERIFIED and self.evaluation is None:
            raise ValueError("what is verified was evaluated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attestation:
    """What an entity found when it evaluated somebody else's knowledge."""

    entity: str  # id
    evaluation: Evaluation
    at: datetime


def upper_bound(evaluation: Evaluation) -> float:
    """The accuracy that a model with these counts exceeds with 1 per cent probability at most.

    The upper end of Wilson's score interval (J. Am. Stat. Assoc. 22, 1927).
    """
    n = sum(evaluation.total)
    p = evaluation.accuracy
    centre = p + Z**2 / (2 * n)
    spread = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return min(1.0, (centre + spread) / (1 + Z**2 / n))


def verdict(claimed: Evaluation, found: Evaluation) -> Verification:
    """Whether a claim agrees with what was found."""
    bound = upper_bound(found)
    if claimed.accuracy > bound:
        told = f"It claims an accuracy of {claimed.accuracy:.3f}; what was found, {found.accuracy:.3f}, allows for"
        return Verification(standing=Standing.QUARANTINED, reason=f"{told} {bound:.3f}.", evaluation=found)
    return Verification(
        standing=Standing.VERIFIED, reason=f"An accuracy of {found.accuracy:.3f} was found.", evaluation=found
    )
