"""Limits of messages that a hub accepts, in bytes and as numbers; docs/wire.md lists them."""

import json
from collections.abc import Collection, Iterable

from kuber.domain.evaluation import Evaluation
from kuber.domain.member import Member
from kuber.errors import RequestRejectedError, TooLargeError

MAX_RECORD_BYTES = 4 << 20  # of a record as canonical JSON
MAX_MANIFEST_BYTES = 1_000_000  # of its manifest; a safetensors header has no more either
MAX_ARGUMENTS_BYTES = 64 << 10  # of the arguments of its architecture
MAX_EVENT_BYTES = 64 << 10  # of the details of an event
MAX_PAGE_BYTES = 8 << 20  # of a page with several items; an item that is longer is left out
MAX_SAMPLES = 10**12  # in an evaluation, and of a class that a publisher states; exact also as a float
MAX_UNKNOWN_CLASSES = 10_000  # in a report of an entity that has published nothing yet
MAX_KEYS = 200  # of one entity


def check_samples(counts: Iterable[int], what: str) -> None:
    """Raise RequestRejectedError when these counts, called `what` in the message, are more samples than possible."""
    samples = sum(counts)
    if samples > MAX_SAMPLES:
        raise RequestRejectedError(f"{what} is of {samples:,} samples; a hub accepts at most {MAX_SAMPLES:,}.")


def check_report(evaluation: Evaluation, classes: Collection[int]) -> None:
    """Raise RequestRejectedError unless a report can be of an entity whose records have so many `classes`.

    Without records it may have up to MAX_UNKNOWN_CLASSES.
    """
    check_samples(evaluation.total, "The evaluation of this report")
    reported = len(evaluation.total)
    if classes and reported not in classes:
        known = " or ".join(map(str, sorted(classes)))
        raise RequestRejectedError(
            f"This report has {reported} classes, and the entity's records have {known}; report on their task."
        )
    if not classes and reported > MAX_UNKNOWN_CLASSES:
        raise TooLargeError(
            f"This report has {reported} classes; before its first record, an entity reports on at most "
            f"{MAX_UNKNOWN_CLASSES}."
        )


def check_key_count(member: Member) -> None:
    """Raise RequestRejectedError when an entity has as many keys as it may have."""
    if len(member.keys) >= MAX_KEYS:
        raise RequestRejectedError(
            f"The entity {member.name!r} has {len(member.keys)} keys, and may have {MAX_KEYS}; join under a new name."
        )


def reported_counts(evaluation: Evaluation) -> dict[str, list[int]]:
    """Return the counts of a report for its event: of each class, or their sums where those would be too long."""
    counts = {"correct": list(evaluation.correct), "total": list(evaluation.total)}
    if len(json.dumps(counts)) <= MAX_EVENT_BYTES // 2:
        return counts
    return {name: [sum(values)] for name, values in counts.items()}
