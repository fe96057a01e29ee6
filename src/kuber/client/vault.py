"""The Vault port over HTTP."""

import hashlib
from collections.abc import Iterable

import httpx
from pydantic import ValidationError

from kuber.client.credentials import Credentials
from kuber.client.http import HttpService, Trusted
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.domain.query import Page
from kuber.errors import (
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceError,
)
from kuber.wire import ArtifactBody, PageBody, PinsBody, sentence

MAX_BLOB_BYTES = 2 << 30  # a larger one is not taken into memory


class HttpVault(HttpService):
    """The vault at `url`, as `kuber.domain.ports.Vault`.

    Raises what the port tells of, and ServiceUnavailableError when no answer comes within `patience` seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        patience: float = 10.0,
        ca: Trusted = None,
    ) -> None:
        """The credentials are those that the registry gave a token for."""
        super().__init__(url, service="vault", patience=patience, credentials=credentials, ca=ca)

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing."""
        digest = Digest.of(data)
        headers = {"Content-Type": "application/octet-stream"}
        answer = self.ask("PUT", f"/v1/blobs/{digest}", content=data, headers=headers)
        artifact = self.parse(ArtifactBody.read, answer.data).value()
        if artifact != Artifact(digest=digest, size=len(data)):
            raise ServiceError(f"The vault at {self.url} says it stored other bytes than were sent; do not trust it.")
        return artifact

    def get(self, digest: Digest) -> bytes:
        """The bytes with this digest, verified while they arrive.

        Raises KnowledgeNotFoundError when they are not there, CorruptKnowledgeError when others came, and
        IncompatibleKnowledgeError when there are more than MAX_BLOB_BYTES.
        """

        def take(response: httpx.Response) -> bytes:
            announced = self._announced(response)
            if announced > MAX_BLOB_BYTES:
                raise IncompatibleKnowledgeError(
                    f"Blob {digest} has {announced} bytes, more than the {MAX_BLOB_BYTES} that are taken."
                )
            sha = hashlib.sha256()
            data = bytearray()
            for piece in response.iter_raw():
                data += piece
                if len(data) > announced:
                    break
                sha.update(piece)
            if len(data) != announced or sha.hexdigest() != digest.hex:
                raise CorruptKnowledgeError(f"What the vault at {self.url} sent is not blob {digest}; do not use it.")
            return bytes(data)

        return self.ask("GET", f"/v1/blobs/{digest}", headers={"Accept-Encoding": "identity"}, take=take).data

    def size(self, digest: Digest) -> int | None:
        """How many bytes are stored under this digest; None when there are none."""
        size: list[int] = []

        def take(response: httpx.Response) -> bytes:
            size.append(self._announced(response))
            return b""

        try:
            self.ask("HEAD", f"/v1/blobs/{digest}", headers={"Accept-Encoding": "identity"}, take=take)
        except KnowledgeNotFoundError:
            return None
        return size[0]

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """What is stored, in order of digest."""
        answer = self.ask("GET", "/v1/blobs", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[ArtifactBody].read, answer.data).value()

    def pin(self, holder: str, artifacts: Iterable[Artifact]) -> None:
        """Promise to keep these blobs for `holder`, all or none."""
        try:
            body = PinsBody(holder=holder, artifacts=tuple(ArtifactBody.of(artifact) for artifact in artifacts))
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None
        self.ask("POST", "/v1/pins", content=body.model_dump_json().encode(), repeatable=True)

    def _announced(self, response: httpx.Response) -> int:
        length = response.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal():
            raise ServiceError(f"The vault at {self.url} does not tell how many bytes it sends; do not trust it.")
        return int(length)
