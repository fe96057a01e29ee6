"""Examination of candidates: whose models are pulled and evaluated, in which order, and what is refused."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.publisher_record import NEW, PublisherRecords
from kuber.domain.task import Task

TOLERANCE = 0.02  # by which a claim may exceed our own evaluation: other machines round differently
MAX_EXAMINED = 16  # models pulled and evaluated in one search, at most
MAX_FAILED = 3  # of these without success, after which proven publishers come first, if there are any


def present(candidates: Iterable[Knowledge], publishers: PublisherRecords, round: int) -> list[Knowledge]:
    """Return the candidates whose publishers are not absent in this round, in their order."""
    return [record for record in candidates if not publishers.get(record.entity, NEW).is_absent(round)]


def without_copies(candidates: Sequence[Knowledge], refused: Collection[str] = ()) -> list[Knowledge]:
    """Return the candidates without copies: a file is its first publisher's, and not that of another name.

    A copy of a record that was `refused`, by id, has a claim of its own, and is none.
    """
    originals = [record for record in candidates if record.copy_of is None or record.copy_of in refused]
    first: dict[object, tuple[object, str]] = {}  # digest -> time and publisher of its first record
    for record in originals:
        for artifact in record.artifacts.values():
            place = record.published_at, record.entity
            first[artifact.digest] = min(first.get(artifact.digest, place), place)
    return [
        record
        for record in originals
        if all(first[artifact.digest][1] == record.entity for artifact in record.artifacts.values())
    ]


def distinct_publishers(candidates: Iterable[Knowledge]) -> list[Knowledge]:
    """Return the first candidate of each publisher, in their order."""
    found: dict[str, Knowledge] = {}
    for record in candidates:
        found.setdefault(record.entity, record)
    return list(found.values())


def places_for(candidates: Sequence[Knowledge], publishers: PublisherRecords, limit: int) -> list[Knowledge]:
    """Return up to `limit` candidates, the first ones first; half of the places are kept for proven publishers."""
    proven = [record for record in candidates if publishers.get(record.entity, NEW).proven]
    kept = min(len(proven), max(limit // 2, limit - (len(candidates) - len(proven))))
    others = [record for record in candidates if not publishers.get(record.entity, NEW).proven][: limit - kept]
    chosen = {record.id for record in (*proven[: limit - len(others)], *others)}
    return [record for record in candidates if record.id in chosen]


def to_examine(
    candidates: Sequence[Knowledge],
    examined: Collection[str],
    publishers: PublisherRecords,
    *,
    tries: int,
    failed: int,
) -> list[Knowledge]:
    """Return the candidates among which to choose again, when some of those chosen were refused.

    `examined` are the ids of those that passed. After `MAX_EXAMINED` models nothing else is pulled; after
    `MAX_FAILED` failures proven publishers come first: new names are free, and those of many liars would use up all
    examinations.
    """
    if tries >= MAX_EXAMINED:
        return [record for record in candidates if record.id in examined]
    if failed >= MAX_FAILED:
        proven = [
            record for record in candidates if record.id in examined or publishers.get(record.entity, NEW).proven
        ]
        return proven or list(candidates)
    return list(candidates)


def claims_taken(
    chosen: Iterable[Knowledge], publishers: PublisherRecords, own: Evaluation | None, *, checked: int, reader: str
) -> set[str]:
    """Return the ids of the records whose claims are taken before a merge; the others are evaluated.

    Claims are taken of proven publishers of which no model was refused, or that was forgiven. `checked` of these are
    evaluated all the same, drawn by the ids of record and reader, so that no publisher can know beforehand which.
    """
    comparable = [
        record.id
        for record in chosen
        if publishers.get(record.entity, NEW).proven
        and not publishers.get(record.entity, NEW).refused
        and record.evaluation_set is None
        and own is not None
        and (record.evaluation.test_set, record.evaluation.total) == (own.test_set, own.total)
    ]
    drawn = sorted(comparable, key=lambda id: sha256(f"{id} {reader}".encode()).digest())
    return set(drawn[checked:])


def as_found(record: Knowledge, found: Evaluation, task: Task) -> Knowledge:
    """Return the record as if it had been claimed on our task with our own evaluation of it."""
    return replace(record, task=task, evaluation=found, class_counts=None, evaluation_set=None, verification=None)


def overclaim(claim: Evaluation, found: Evaluation, *, common: bool) -> str | None:
    """Return why a claim is refused, given our own evaluation of the same model; None if it is not.

    Claims on another set are not compared. On a `common` test set the counts of samples are equal, and so are those
    of correct answers but for rounding, so that recalls may not be claimed higher than found either; of private data
    they are published in part.
    """
    if claim.test_set != found.test_set:
        return None
    if claim.accuracy > found.accuracy + TOLERANCE:
        return f"It claims an accuracy of {claim.accuracy:.3f} and has {found.accuracy:.3f}."
    if not common:
        return None
    if claim.total != found.total:
        return "It claims other numbers of samples than the classes of the common test set have."
    surplus = sum(max(0, said - has) for said, has in zip(claim.correct, found.correct, strict=True))
    if surplus > max(1, 2 * TOLERANCE * sum(found.total)):
        return f"It claims {surplus} correct answers in classes in which it has not given them."
    return None
