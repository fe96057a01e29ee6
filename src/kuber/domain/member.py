"""Members: entities as the registry knows them."""

from dataclasses import dataclass
from datetime import datetime

PUBLIC_KEY_LENGTH = 64  # hex digits
SIGNATURE_LENGTH = 128
HUB_LENGTH = 64  # a hub's id is the public key that it proves itself with
SEQUENCE_STEP = 100_000  # most records that a sequence may skip: an older backup of a hub has missed fewer
MAX_SEQUENCE = 2**53 - 1  # whole numbers up to here are exact in every JSON reader


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """Public key of an entity; each but the first is signed with the previous key, or with the hub's."""

    public_key: str  # ed25519, as hex digits
    since: int = 0  # sequence of the first record that it signs
    signature: str | None = None  # with the previous key
    hub: str | None = None  # id of the hub that it is signed for; None in keys of older versions
    by_hub: bool | None = None  # whether the hub signed it, as its operator replaced a lost key

    def __post_init__(self) -> None:
        check_hex(self.public_key, PUBLIC_KEY_LENGTH, "a public key")
        if self.signature is not None:
            check_hex(self.signature, SIGNATURE_LENGTH, "a signature")
        if self.hub is not None:
            check_hex(self.hub, HUB_LENGTH, "the id of a hub")
        if self.since < 0:
            raise ValueError("a sequence is not negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A registered entity."""

    id: str  # made by the registry
    name: str  # chosen by the entity, unique in the registry
    registered_at: datetime
    sequence: int = 0  # that of its last signed record
    keys: tuple[Key, ...] = ()  # the first was pinned at enrolment; without keys it signs nothing

    def key_for(self, sequence: int) -> Key | None:
        """Return the key that signs the record with this sequence, if any."""
        return next((key for key in reversed(self.keys) if key.since <= sequence), None)


def check_hex(text: str, length: int, what: str) -> None:
    """Raise ValueError unless `text` is this many hex digits; `what` names it in the message."""
    if len(text) != length or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{what} is {length} lower-case hex digits")
