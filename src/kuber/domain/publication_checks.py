"""Checks of a registry before it accepts a record, a name or an attestation."""

from collections.abc import Iterable

from kuber.domain.artifact_checks import KINDS
from kuber.domain.builtin_architectures import builtin_manifest
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Draft, Knowledge, Manifest
from kuber.domain.member import Member
from kuber.domain.message_limits import check_samples
from kuber.domain.safetensors_header import bfloat16_manifest
from kuber.domain.tensors_digest import stated_tensors, tensors_digest
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


def check_repeated(earlier: Digest, digest: Digest) -> None:
    """Raise ConflictError unless a repeated publication key comes with the same draft, by digest."""
    if earlier != digest:
        raise ConflictError("This key was used for another publication; choose a new key for each.")


def check_known_manifest(architecture: Architecture) -> None:
    """Raise RequestRejectedError unless the tensors are those that name and arguments themselves determine.

    So it is for a built-in architecture, and for one that is known by a digest of its tensors. Others are free.
    """
    if not architecture.manifest:
        return
    known = builtin_manifest(architecture)
    if known is not None and dict(architecture.manifest) != dict(known):
        raise RequestRejectedError(
            f"The architecture {architecture.name!r} is built in, and with these arguments it has other tensors than "
            "this record; publish yours under another name."
        )
    stated = stated_tensors(architecture)
    if stated is not None and stated != tensors_digest(architecture.manifest):
        raise RequestRejectedError(
            f"The tensors of {architecture.name!r} are not those that its argument `tensors` is the digest of; "
            "publish the digest of this record's tensors."
        )


def check_storable(architecture: Architecture) -> None:
    """Raise RequestRejectedError for text that not every database stores and not every encoding has.

    Records of earlier versions may have some, and are read.
    """
    texts = [text for text in architecture.arguments.values() if isinstance(text, str)]
    for text in (*texts, *architecture.manifest):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise RequestRejectedError(
                "An argument of the architecture or the name of a tensor has the character NUL or half of a "
                "surrogate pair; use other text."
            )


def check_pinned(architecture: Architecture, manifest: Manifest) -> None:
    """Raise ConflictError unless the architecture has the manifest that the records before it have."""
    if dict(architecture.manifest) != dict(manifest):
        raise ConflictError(
            f"The architecture {architecture.name!r} with these arguments is pinned to other tensors by its first "
            "publisher; publish yours under another name, or ask the operator to remove the pin."
        )


def not_registered(entity: str) -> RequestRejectedError:
    """Return the error about an entity that the registry does not know."""
    return RequestRejectedError(f"No entity {entity[:100]!r} is registered here; register first.")


def check_missing(missing: Iterable[str]) -> None:
    """Raise RequestRejectedError if there are ids of knowledge that the registry does not have."""
    first = min(missing, default=None)
    if first is not None:
        raise RequestRejectedError(f"The registry has no knowledge {first[:100]!r}; name only knowledge that it has.")


def check_owner(member: Member, public_key: str | None) -> None:
    """Raise ConflictError unless the member's name belongs to this key."""
    if (member.keys[-1].public_key if member.keys else None) != public_key:
        raise ConflictError(
            f"The name {member.name!r} belongs to another key; choose another name, or use the key of that entity. "
            "If it is lost, the hub's operator can allow a new one (`kuber hub rekey NAME`)."
        )


def check_attestation(record: Knowledge, member: Member, evaluation: Evaluation) -> None:
    """Raise RequestRejectedError unless the entity may attest this record with this evaluation."""
    if record.entity == member.id:
        raise RequestRejectedError("The record is your own; attest only knowledge of others.")
    if evaluation.test_set != record.task.test_set or len(evaluation.total) != record.task.classes:
        raise RequestRejectedError("The evaluation is not on the common test set of the record's task; use that set.")
    check_samples(evaluation.total, "The evaluation")


def check_kind(kind: str) -> None:
    """Raise RequestRejectedError unless this is a known artifact kind."""
    if kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise RequestRejectedError(f"There is no artifact kind {kind[:100]!r}; publish one of: {known}.")


def invalid_artifact(digest: Digest, kind: str, fault: str) -> RequestRejectedError:
    """Return the error about a blob that is not a valid artifact of its kind."""
    return RequestRejectedError(f"Blob {digest} is not a valid {kind} artifact: {fault}.")


def check_text(text: str, what: str) -> None:
    """Raise RequestRejectedError unless `text`, called `what` in the message, can be a name or a key."""
    if not (1 <= len(text) <= MAX_TEXT and text.isprintable()):
        raise RequestRejectedError(f"{what} is 1 to {MAX_TEXT} printable characters; choose another.")
