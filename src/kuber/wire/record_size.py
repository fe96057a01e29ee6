"""Check of the size of a record, before a registry accepts it."""

from kuber.domain.message_limits import MAX_ARGUMENTS_BYTES, MAX_MANIFEST_BYTES, MAX_RECORD_BYTES, check_samples
from kuber.errors import TooLargeError
from kuber.wire.base import canonical
from kuber.wire.registry import DraftBody


def check_size(body: DraftBody, size: int) -> None:
    """Raise TooLargeError when a record of `size` bytes of canonical JSON, or a part of it, is too large.

    Raises RequestRejectedError when it counts more samples than possible.
    """
    _check("The record", size, MAX_RECORD_BYTES)
    check_samples(body.evaluation.total, "The evaluation of this record")
    check_samples([body.sample_count or 0], "The training of this record")
    check_samples(body.class_counts or (), "The training of this record, summed over classes,")
    if size > MAX_ARGUMENTS_BYTES:
        bare = body.architecture.model_copy(update={"manifest": {}})
        arguments = len(canonical(bare))
        _check("The record's architecture without its manifest", arguments, MAX_ARGUMENTS_BYTES)
        if size > MAX_MANIFEST_BYTES:
            manifest = len(canonical(body.architecture)) - arguments
            _check("The record's manifest", manifest, MAX_MANIFEST_BYTES)


def _check(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"{what} has {size:,} bytes of JSON; a registry accepts at most {limit:,}.")
