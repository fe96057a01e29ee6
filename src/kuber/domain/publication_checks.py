"""What a registry asks of a record before it takes it, whatever it stores records in."""

from kuber.domain.artifact_checks import KINDS
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Draft, Knowledge, Manifest
from kuber.domain.member import Member
from kuber.domain.safetensors_header import bfloat16_manifest
from kuber.errors import ConflictError, RequestRejectedError

MAX_TEXT = 200


def check_weights(draft: Draft, stored: Manifest) -> None:
    """Raise RequestRejectedError unless the stored weights have the tensors of the draft's manifest.

    Tensors declared as float32 may all be stored as bfloat16.
    """
    declared = dict(draft.architecture.manifest)
    if dict(stored) not in (declared, bfloat16_manifest(declared)):
        raise RequestRejectedError(
            f"Blob {draft.artifacts[WEIGHTS].digest} has other tensors than the record's manifest; publish weights "
            "that match it."
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


def invalid_artifact(digest: Digest, kind: str, fault: str) -> RequestRejectedError:
    """Return the error about a blob that is not a valid artifact of its kind."""
    return RequestRejectedError(f"Blob {digest} is not a valid {kind} artifact: {fault}.")


def check_text(text: str, what: str) -> None:
    """RequestRejectedError unless `text`, called `what` in the sentence, can be a name or a key."""
    if not (1 <= len(text) <= MAX_TEXT and text.isprintable()):
        raise RequestRejectedError(f"{what} is 1 to {MAX_TEXT} printable characters; choose another.")
