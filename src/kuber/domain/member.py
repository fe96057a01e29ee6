"""An entity as the registry knows it."""

from dataclasses import dataclass
from datetime import datetime

PUBLIC_KEY_LENGTH = 64  # hex digits
SIGNATURE_LENGTH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A public key of an entity; each but the first is vouched for by the one before."""

    public_key: str  # ed25519, as hex digits
    since: int = 0  # sequence of the first record that it may sign
    signature: str | None = None  # by the key before

    def __post_init__(self) -> None:
        check_hex(self.public_key, PUBLIC_KEY_LENGTH, "a public key")
        if self.signature is not None:
            check_hex(self.signature, SIGNATURE_LENGTH, "a signature")
        if self.since < 0:
            raise ValueError("a sequence is not negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A registered entity."""

    id: str  # made by the registry
    name: str  # chosen by the entity, unique in the registry
    registered_at: datetime
    sequence: int = 0  # of its last signed record
    keys: tuple[Key, ...] = ()  # the first was pinned when it enrolled; none: it signs nothing

    def key_for(self, sequence: int) -> Key | None:
        """The key that signs the record with this sequence."""
        return next((key for key in reversed(self.keys) if key.since <= sequence), None)


def check_hex(text: str, length: int, what: str) -> None:
    """ValueError unless `text` is so many hex digits."""
    if len(text) != length or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{what} is {length} lower-case hex digits")
