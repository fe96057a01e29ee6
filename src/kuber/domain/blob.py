"""Pins, uploads and maintenance results of a vault."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kuber.domain.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """Promise to keep a blob for a holder: the id of a record."""

    holder: str
    digest: Digest
    pinned_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Owner of a blob: the entity that was the first to upload it, and when it was stored."""

    entity: str | None  # id; None when a service stored it, or a vault of an early version
    stored_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectUrl:
    """Presigned URL of a blob in the vault's bucket. Anyone who has it can use it until it expires."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """Upload of a blob, of which `offset` bytes have arrived; `id` is None if the vault has the blob already."""

    id: str | None
    digest: Digest
    size: int
    offset: int
    direct: DirectUrl | None = None  # where the bytes may be put instead


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Result of a garbage collection: removed blobs without a pin, and leftovers of uploads."""

    blobs: int
    size: int  # bytes of those blobs
    leftovers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rot:
    """A blob that was found damaged and quarantined, or found missing."""

    digest: Digest
    fault: Literal["damaged", "lost"]
    holders: int  # number of records that pin it


@dataclass(frozen=True, kw_only=True, slots=True)
class Scrub:
    """Result of hashing some stored blobs again; `cursor` continues after them and is None at the end."""

    blobs: int
    size: int  # bytes read
    rotten: tuple[Rot, ...]
    cursor: str | None
