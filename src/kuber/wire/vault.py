"""Messages of the vault."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from kuber.domain.blob import Collection, DirectUrl, Owner, Pin, Rot, Scrub, Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.errors import RequestRejectedError
from kuber.wire.base import Body, Count, DigestField, Message, Positive, Text, Time, sentence
from kuber.wire.problem import ProblemBody
from kuber.wire.registry import ArtifactBody, ManifestField, TensorBody
from kuber.wire.sent_blobs import SentBlobs

MAX_BATCH = 16  # holders in a batch of pins


class KindBody(ArtifactBody):
    """One file in the vault, and the kind of artifact that it must be."""

    kind: Annotated[str, Field(min_length=1, max_length=64)]


class PinsBody(Message):
    """Blobs to keep for a holder, and the bytes of small ones that are stored for their owner first."""

    holder: Text
    artifacts: Annotated[tuple[KindBody, ...], Field(max_length=1000)]
    owner: Text | None = None
    blobs: SentBlobs = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        holder: str,
        artifacts: Iterable[tuple[str, Artifact]],
        *,
        owner: str | None = None,
        blobs: Mapping[Digest, str] | None = None,
    ) -> Self:
        """Return the request to keep these. RequestRejectedError when it exceeds the limits of messages."""
        try:
            bodies = tuple(
                KindBody(kind=kind, digest=artifact.digest, size=artifact.size) for kind, artifact in artifacts
            )
            return cls(holder=holder, artifacts=bodies, owner=owner, blobs=dict(blobs or {}))
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None

    def pairs(self) -> list[tuple[str, Artifact]]:
        """Return kind and artifact of each."""
        return [(artifact.kind, artifact.value()) for artifact in self.artifacts]


class PinnedBody(Message):
    """Manifests of the pinned weights, by digest."""

    manifests: Annotated[dict[DigestField, ManifestField], Field(max_length=1000, default_factory=dict)]

    @classmethod
    def of(cls, manifests: Mapping[Digest, Manifest]) -> Self:
        """Return the message, without manifests that exceed the limits: no record can declare these."""
        sendable: dict[Digest, dict[str, TensorBody]] = {}
        for digest, manifest in manifests.items():
            with suppress(ValidationError):
                sendable |= cls.model_validate({"manifests": {digest: manifest}}, from_attributes=True).manifests
        return cls(manifests=sendable)

    def value(self) -> dict[Digest, Manifest]:
        """Return the manifests as domain values."""
        return {
            digest: {name: tensor.value() for name, tensor in manifest.items()}
            for digest, manifest in self.manifests.items()
        }


class PinBatchBody(Message):
    """Blobs to keep for several holders."""

    holders: Annotated[tuple[PinsBody, ...], Field(min_length=1, max_length=MAX_BATCH)]


class PinResultBody(Message):
    """Result of pinning for one holder: the manifests of its weights, or why nothing was pinned."""

    pinned: PinnedBody | None = None
    problem: ProblemBody | None = None


class PinResultsBody(Message):
    """Results of a batch of pins, in the order of the holders."""

    results: Annotated[tuple[PinResultBody, ...], Field(max_length=MAX_BATCH)]


class PinBody(Body[Pin]):
    """A pin: a promise to keep a blob."""

    holder: Text
    digest: DigestField
    pinned_at: Time


class OwnerBody(Body[Owner]):
    """Owner of a blob."""

    entity: Text | None = None
    stored_at: Time


class AnnouncementBody(ArtifactBody):
    """Announcement of a blob that will be uploaded."""

    direct: bool = Field(False, description="Request a URL of the vault's bucket to put the bytes to.")


class DirectUrlBody(Body[DirectUrl]):
    """Presigned URL of a vault's bucket."""

    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=8000)]
    expires_at: Time


class UploadBody(Body[Upload]):
    """State of an upload."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    digest: DigestField
    size: Positive
    offset: Count
    direct: DirectUrlBody | None = None


class CollectionBody(Body[Collection]):
    """Result of a garbage collection."""

    blobs: Count
    size: Count
    leftovers: Count


class RotBody(Body[Rot]):
    """A blob that was damaged or lost."""

    digest: DigestField
    fault: Literal["damaged", "lost"]
    holders: Count


class ScrubBody(Body[Scrub]):
    """Result of hashing some stored blobs again."""

    blobs: Count
    size: Count
    rotten: Annotated[tuple[RotBody, ...], Field(max_length=1000)]
    cursor: Annotated[str, Field(max_length=200)] | None = None
