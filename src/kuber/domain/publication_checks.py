"""What a registry asks of a record before it takes it, whatever it stores records in."""

from collections.abc import Callable

from kuber.domain.artifact_checks import KINDS
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft, Knowledge
from kuber.domain.member import Member
from kuber.domain.safetensors_header import PREFIX_LENGTH, header_length, narrowed, read_manifest
from kuber.errors import ConflictError, RequestRejectedError

USUAL_HEADER = 1 << 16  # bytes read of a blob at first; longer headers are read whole then
MAX_TEXT = 200


def check_weights(draft: Draft, head: Callable[[Digest, int], bytes]) -> None:
    """RequestRejectedError unless the header of the stored weights is the manifest that the draft tells, or
    that manifest narrowed.

    `head(digest, length)` gives the first bytes of a blob, or all of a shorter one. A draft without weights passes.
    """
    weights = draft.artifacts.get(WEIGHTS)
    if weights is None:
        return
    try:
        start = head(weights.digest, USUAL_HEADER)
        end = PREFIX_LENGTH + header_length(start)
        if end > len(start):
            start = head(weights.digest, end)
        manifest = read_manifest(start[PREFIX_LENGTH:end], size=weights.size)
    except ValueError as error:
        raise RequestRejectedError(f"Blob {weights.digest} holds no sound weights: {error}.") from None
    told = dict(draft.architecture.manifest)
    if manifest not in (told, narrowed(told)):
        raise RequestRejectedError(
            f"Blob {weights.digest} holds other tensors than the record tells; publish weights that fit it."
        )


def check_owner(member: Member, public_key: str | None) -> None:
    """ConflictError unless this is the key that the member's name belongs to."""
    if (member.keys[-1].public_key if member.keys else None) != public_key:
        raise ConflictError(
            f"The name {member.name!r} belongs to another key; choose another name, or use the key of that entity."
        )


def check_attestation(record: Knowledge, member: Member, evaluation: Evaluation) -> None:
    """RequestRejectedError when an entity has nothing to say about this record."""
    if record.entity == member.id:
        raise RequestRejectedError("The record is your own; attest what others publish.")
    if evaluation.test_set != record.task.test_set or len(evaluation.total) != record.task.classes:
        raise RequestRejectedError("The evaluation is not one on the common test set of the record's task.")


def check_kind(kind: str) -> None:
    """RequestRejectedError unless there is a check for artifacts of this kind."""
    if kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise RequestRejectedError(f"There is no artifact kind {kind[:100]!r}; publish only: {known}.")


def unsound(digest: Digest, kind: str, fault: str) -> RequestRejectedError:
    """The sentence about a blob that is not what its kind asks for."""
    return RequestRejectedError(f"Blob {digest} holds no sound {kind}: {fault}.")


def check_text(text: str, what: str) -> None:
    """RequestRejectedError unless `text`, called `what` in the sentence, can be a name or a key."""
    if not (1 <= len(text) <= MAX_TEXT and text.isprintable()):
        raise RequestRejectedError(f"{what} is 1 to {MAX_TEXT} printable characters; choose another.")
