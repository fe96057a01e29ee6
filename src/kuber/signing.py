"""Signatures: an entity's private key, and what anybody can check with its public one.

Ed25519 (RFC 8032): deterministic, so the same record signed again is the same record. Keys and signatures travel as
lower-case hex digits.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kuber.domain.knowledge import Draft
from kuber.domain.member import Key, Member
from kuber.errors import ConflictError, CorruptKnowledgeError, RequestRejectedError, ServiceError
from kuber.files import write_atomically


class Identity:
    """The private key of an entity. It never leaves the entity's machine."""

    def __init__(self, seed: bytes) -> None:
        """`seed` is the private key of RFC 8032: 32 random bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def new(cls) -> "Identity":
        """A key nobody has had before."""
        return cls(os.urandom(32))

    @classmethod
    def kept(cls, path: Path) -> "Identity":
        """The key in this file, which only its owner can read; a new one is made where there is none.

        Raises ServiceError when the file cannot be used.
        """
        try:
            if path.exists():
                return cls(bytes.fromhex(path.read_text(encoding="ascii")))
            seed = os.urandom(32)
            write_secret(path, seed.hex())
            return cls(seed)
        except OSError as error:
            raise ServiceError(f"The key {path} cannot be used: {error.strerror}.") from None
        except ValueError:
            raise ServiceError(f"{path} holds no key; move it away, and enrol anew under another name.") from None

    @property
    def public_key(self) -> str:
        """What others check signatures with: 64 hex digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> str:
        """The signature of these bytes: 128 hex digits."""
        return self._key.sign(message).hex()


def check_signature(public_key: str, signature: str, message: bytes, what: str) -> None:
    """CorruptKnowledgeError, about `what`, unless the owner of the key signed these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        raise CorruptKnowledgeError(f"{what} is not signed with the key of its entity; do not use it.") from None


def check_keys(member: Member, signed: Callable[[str, Key], bytes], *, start: int = 0) -> None:
    """CorruptKnowledgeError unless each key after the one at `start` is vouched for by the one before it.

    `signed(id, key)` is what was signed of a key of the entity with this id.
    """
    for before, key in zip(member.keys[start:], member.keys[start + 1 :], strict=False):
        message = signed(member.id, key)
        check_signature(before.public_key, key.signature or "", message, f"The new key of {member.name!r}")


def check_record(member: Member, draft: Draft, message: bytes) -> None:
    """Raises unless the publisher signed `message`, what is signed of the draft; one without a key signs nothing."""
    key = member.key_for(draft.sequence)
    if key is None:
        return
    if draft.signature is None:
        raise RequestRejectedError("The record is not signed; sign it with the key of its entity.")
    check_signature(key.public_key, draft.signature, message, "The record")


def check_sequence(draft: Draft, last: int) -> None:
    """ConflictError when the publisher has come further already."""
    if draft.sequence <= last:
        raise ConflictError(
            f"The record has sequence {draft.sequence}, and record {last} of this entity is here already; "
            "a signed record is sent once."
        )


def check_succession(member: Member, key: Key, message: bytes, last: int) -> None:
    """Raises unless the member's last key signed `message`, the new key, for records that are yet to come."""
    if not member.keys:
        raise RequestRejectedError("An entity without a key has none to change; enrol with one.")
    if key.signature is None:
        raise RequestRejectedError("The new key is not signed; sign it with the last one.")
    check_signature(member.keys[-1].public_key, key.signature, message, "The new key")
    if key.since <= last:
        raise ConflictError(f"Record {last} of this entity is signed already; let the new key begin after it.")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("ascii"), mode=0o600)
