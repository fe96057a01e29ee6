"""Small blobs that are sent with a record, as base64 in its JSON."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.errors import RequestRejectedError
from kuber.wire.base import DigestField

MAX_SENT_BYTES = 128 << 10  # of the blobs that are sent with one record; larger ones are put in the vault first

_Base64 = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=4 * (MAX_SENT_BYTES // 3 + 1), description="Bytes in base64."
    ),
]
SentBlobs = Annotated[dict[DigestField, _Base64], Field(max_length=16)]


def encode_blobs(blobs: Iterable[bytes]) -> dict[str, str]:
    """Return blobs as they are sent: base64 by digest."""
    return {str(Digest.of(data)): base64.b64encode(data).decode() for data in blobs}


def decode_blob(artifact: Artifact, encoded: str) -> bytes:
    """Return the bytes of an artifact that was sent. RequestRejectedError when they are not those of its digest."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        data = b""
    if len(data) != artifact.size or Digest.of(data) != artifact.digest:
        raise RequestRejectedError(f"The bytes sent for blob {artifact.digest} are not its own; send them again.")
    return data


def check_sent(blobs: Mapping[Digest, str], artifacts: Iterable[Artifact]) -> None:
    """Raise RequestRejectedError unless the blobs are some of these artifacts, by their size, and small."""
    sizes = {artifact.digest: artifact.size for artifact in artifacts}
    for digest, encoded in blobs.items():
        if digest not in sizes or len(encoded) != 4 * -(-sizes[digest] // 3):
            raise RequestRejectedError(f"Blob {digest} is sent with the record, but is none of its artifacts.")
    if sum(sizes[digest] for digest in blobs) > MAX_SENT_BYTES:
        raise RequestRejectedError(
            f"At most {MAX_SENT_BYTES} bytes of blobs are sent with a record; put these in the vault first."
        )
