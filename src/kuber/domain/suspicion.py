"""Suspicions: records that the evaluations of other entities contradict, and copies, for the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kuber.domain.examination import overclaim
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Attestation


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspicion:
    """Reasons to look at a record. None of them is a proof: entities that attest may lie too."""

    knowledge: str  # id
    entity: str  # id of its publisher
    publisher: str  # name
    claimed: float  # accuracy
    found: float | None  # median of the accuracies that other entities attested
    agreed: int  # number of entities whose evaluation supports the claim
    refused_by: tuple[str, ...]  # names of those whose evaluation contradicts it
    copy_of: str | None = None  # id of the first record with the same file, of another publisher
    first_publisher: str | None = None  # name of that publisher


def suspicion(
    record: Knowledge, attestations: Sequence[Attestation], names: Mapping[str, str], first: str | None
) -> Suspicion | None:
    """Return the suspicion about a record; None when nobody contradicts it and it is no copy.

    `names` are those of entities by id; `first` is the name of the publisher of the record that it copies.
    """
    refused = [
        found.entity
        for found in attestations
        if overclaim(record.evaluation, found.evaluation, common=record.task.test_set is not None) is not None
    ]
    if not refused and record.copy_of is None:
        return None
    return Suspicion(
        knowledge=record.id,
        entity=record.entity,
        publisher=names[record.entity],
        claimed=record.evaluation.accuracy,
        found=median(found.evaluation.accuracy for found in attestations) if attestations else None,
        agreed=len(attestations) - len(refused),
        refused_by=tuple(sorted(names[entity] for entity in refused)),
        copy_of=record.copy_of,
        first_publisher=first,
    )
