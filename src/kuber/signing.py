"""Ed25519 signatures (RFC 8032): an entity's private key, and checks with its public key.

Signing is deterministic, so the same record signed twice is the same record. Keys and signatures are sent as
lower-case hex digits.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kuber.domain.knowledge import Draft
from kuber.domain.member import MAX_SEQUENCE, SEQUENCE_STEP, Key, Member
from kuber.errors import ConflictError, CorruptKnowledgeError, RequestRejectedError, ServiceError
from kuber.files import write_atomically


class Identity:
    """Private key of an entity, which never leaves the entity's machine."""

    def __init__(self, seed: bytes) -> None:
        """Make the key pair from `seed`, the private key of RFC 8032: 32 random bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def generate(cls) -> "Identity":
        """Return a new random key."""
        return cls(os.urandom(32))

    @classmethod
    def load_or_create(cls, path: Path) -> "Identity":
        """Return the key in this file; without a file, write a new key to one that only its owner can read.

        Raises ServiceError when the file cannot be read or written, or holds no key.
        """
        try:
            if path.exists():
                return cls(bytes.fromhex(path.read_text(encoding="ascii")))
            seed = os.urandom(32)
            write_secret(path, seed.hex())
            return cls(seed)
        except OSError as error:
            raise ServiceError(f"The key file {path} cannot be read or written: {error.strerror}.") from None
        except ValueError:
            raise ServiceError(f"{path} holds no key; move the file away and enrol under another name.") from None

    @property
    def public_key(self) -> str:
        """The public key that others check signatures with: 64 hex digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> str:
        """Return the signature of these bytes: 128 hex digits."""
        return self._key.sign(message).hex()


def check_signature(public_key: str, signature: str, message: bytes, subject: str) -> None:
    """Raise CorruptKnowledgeError, with `subject` in its message, unless the owner of the key signed these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        raise CorruptKnowledgeError(f"{subject} is not signed with the key of its entity; do not use it.") from None


def check_keys(
    member: Member, signed_bytes: Callable[[str, Key], bytes], *, start: int = 0, hub: str | None = None
) -> None:
    """Raise CorruptKnowledgeError unless each key after index `start` is signed with the key before it, or by `hub`.

    `signed_bytes(id, key)` returns the bytes to sign for a new key of the entity with this id.
    """
    for before, key in zip(member.keys[start:], member.keys[start + 1 :], strict=False):
        signer = before.public_key
        if key.by_hub:
            if hub is None or key.hub != hub:
                raise CorruptKnowledgeError(
                    f"The new key of {member.name!r} is signed by a hub that is not known here; do not use what it "
                    "publishes."
                )
            signer = hub  # the id of a hub is its public key
        message = signed_bytes(member.id, key)
        check_signature(signer, key.signature or "", message, f"The new key of {member.name!r}")


def check_hub(named: str | None, hub: str | None, subject: str) -> None:
    """Raise CorruptKnowledgeError, with `subject` in its message, when it is signed for another hub than this one.

    What older versions sign names no hub.
    """
    if named is not None and hub is not None and named != hub:
        raise CorruptKnowledgeError(
            f"{subject} is signed for hub {named[:12]}, and this is hub {hub[:12]}; do not use it."
        )


def check_record(member: Member, draft: Draft, message: bytes, *, prior: bytes = b"", hub: str | None = None) -> None:
    """Raise unless the publisher signed `message`, the canonical bytes of the draft. Without a key it signs nothing.

    `prior` are the bytes of the draft's prior, which has a signature of its own.

    Raises RequestRejectedError without a signature, CorruptKnowledgeError with a wrong one, or one for another hub.
    """
    check_hub(draft.hub, hub, "The record")
    key = member.key_for(draft.sequence)
    if key is None:
        return
    if draft.signature is None:
        raise RequestRejectedError("The record is not signed; sign it with the key of its entity.")
    check_signature(key.public_key, draft.signature, message, "The record")
    check_prior(key.public_key, draft, prior, "The prior of the record")


def check_prior(public_key: str, draft: Draft, message: bytes, subject: str) -> None:
    """Raise CorruptKnowledgeError unless the draft has no prior, or the owner of the key signed it as `message`."""
    if draft.prior is not None:
        check_signature(public_key, draft.prior_signature or "", message, subject)


def check_sequence(draft: Draft, last: int) -> None:
    """Check the draft's sequence against the publisher's `last` one.

    Raises ConflictError when it is not above it, RequestRejectedError when it is too far above it.
    """
    if draft.sequence <= last:
        raise ConflictError(
            f"The record has sequence {draft.sequence}, but this entity has already published record {last}; "
            "send each signed record once."
        )
    check_step(draft.sequence, last)


def check_step(sequence: int, last: int) -> None:
    """Raise RequestRejectedError when a sequence is so far above the `last` one that few such steps end them all."""
    if sequence > min(last + SEQUENCE_STEP, MAX_SEQUENCE):
        raise RequestRejectedError(
            f"The sequence {sequence} is more than {SEQUENCE_STEP} above {last}, the last one of this entity; "
            "count on from there."
        )


def check_new_key(member: Member, key: Key, message: bytes, last: int, *, hub: str | None = None) -> None:
    """Raise unless the member's last key signed `message`, which names the new key, for records after `last`.

    Raises RequestRejectedError without a key or signature, CorruptKnowledgeError with a wrong signature or one for
    another hub, and ConflictError when the new key would begin at a record that is signed already.
    """
    check_hub(key.hub, hub, "The new key")
    if not member.keys:
        raise RequestRejectedError("This entity has no key to replace; enrol with a key.")
    if key.signature is None or key.by_hub:
        raise RequestRejectedError("The new key is not signed; sign it with the entity's last key.")
    check_signature(member.keys[-1].public_key, key.signature, message, "The new key")
    if key.since <= last:
        raise ConflictError(f"Record {last} of this entity is signed already; the new key must begin after it.")
    check_step(key.since, last)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read; create the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("ascii"), mode=0o600)
