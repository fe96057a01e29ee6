"""Track record of an attester, and doubts about claims that attesters contradict."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kuber.domain.evaluation import Evaluation
from kuber.domain.examination import TOLERANCE, overclaim
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation

UNKNOWN = 0.1  # weight of an attester who has not agreed with an own finding yet
UNKNOWN_TOGETHER = 0.4  # of all such together: new names are free
ENOUGH = 0.5  # weight of those who contradict a claim, from which on it is doubted


@dataclass(frozen=True, kw_only=True, slots=True)
class AttesterRecord:
    """Own findings that the attestations of another entity agreed with, and those that it differed from.

    Only false claims count as agreed: to repeat claims that are true takes no evaluation.
    """

    agreed: int = 0
    differed: int = 0

    @property
    def weight(self) -> float:
        """Weight of an attestation, 0 to 1: none for who differed in one of four."""
        if self.differed * 4 > self.agreed:
            return 0.0
        return self.agreed / (self.agreed + 1)


def compared(
    records: Mapping[str, AttesterRecord], attestations: Iterable[Attestation], found: Evaluation, *, was_false: bool
) -> dict[str, AttesterRecord]:
    """Return the track records after a model was evaluated whose claim was false, or not."""
    after = dict(records)
    for attestation in attestations:
        record = after.get(attestation.entity, AttesterRecord())
        if abs(attestation.evaluation.accuracy - found.accuracy) > TOLERANCE:
            after[attestation.entity] = replace(record, differed=record.differed + 1)
        elif was_false:
            after[attestation.entity] = replace(record, agreed=record.agreed + 1)
    return after


def is_doubted(record: Knowledge, attestations: Iterable[Attestation], records: Mapping[str, AttesterRecord]) -> bool:
    """Return whether a claim that the hub has not verified is contradicted by attesters of more weight than others.

    A doubted model is examined last, so that a slander costs it no more than that.
    """
    if record.verification is not None and record.verification.evaluation is not None:
        return False
    against, others, unknown = 0.0, 0.0, 0.0
    for attestation in attestations:
        contradicts = overclaim(record.evaluation, attestation.evaluation, common=True) is not None
        known = records.get(attestation.entity)
        if known is None:
            unknown += UNKNOWN if contradicts else -UNKNOWN
        elif contradicts:
            against += known.weight
        else:
            others += known.weight
    unknown = max(-UNKNOWN_TOGETHER, min(UNKNOWN_TOGETHER, unknown))
    return against + unknown - others >= ENOUGH
