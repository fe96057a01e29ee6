"""What a vault tells of its blobs beside their bytes: who holds them, what is on its way in, what was removed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kuber.domain.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """A promise to keep a blob for a holder, which is a record's id."""

    holder: str
    digest: Digest
    pinned_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectUrl:
    """Where bytes go straight to a vault's bucket, or come from it, until it expires. Whoever knows it may use it."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A blob on its way in, of which `offset` bytes have come; `id` is None where the vault has it already."""

    id: str | None
    digest: Digest
    size: int
    offset: int
    direct: DirectUrl | None = None  # where its bytes may be put instead


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """What a collection removed: blobs that nobody held, and leftovers of uploads."""

    blobs: int
    size: int  # bytes of those blobs
    leftovers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rot:
    """A blob that was found damaged and set aside, or lost."""

    digest: Digest
    fault: Literal["damaged", "lost"]
    holders: int  # how many records it was kept for


@dataclass(frozen=True, kw_only=True, slots=True)
class Scrub:
    """A stretch of stored blobs that was hashed again; `cursor` goes on after it, None at the end."""

    blobs: int
    size: int  # bytes read
    rotten: tuple[Rot, ...]
    cursor: str | None
