"""The Vault port over HTTP."""

import time
from collections.abc import Iterable
from dataclasses import replace

import httpx

from kuber.client.credentials import Credentials
from kuber.client.download import Download, announced
from kuber.client.http import ANSWER_SECONDS, WAIT_FIRST, WAIT_MOST, HttpService, Response, Trusted
from kuber.client.presigned import PresignedTransfer
from kuber.domain.blob import Collection, Pin, Scrub, Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.domain.query import Page
from kuber.errors import (
    ConflictError,
    KnowledgeError,
    KnowledgeNotFoundError,
    ServiceError,
    ServiceUnavailableError,
)
from kuber.wire import (
    DIRECT_HEADER,
    AnnouncementBody,
    ArtifactBody,
    CollectionBody,
    PageBody,
    PinBody,
    PinsBody,
    ScrubBody,
    UploadBody,
)

WHOLE = 8 << 20  # bytes that are sent in one request; more of them go on where they were cut
PIECE = 1 << 20
LOOKED_AT = 10 << 20  # bytes a second that a vault reads and copies in its bucket, at the slowest


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
        self._direct = PresignedTransfer(secure=self.url.startswith("https://"), ca=ca)

    def close(self) -> None:
        """Let go of the connections."""
        self._direct.close()
        super().close()

    def put(self, data: bytes) -> Artifact:
        """Store these bytes; storing them again changes nothing.

        Many bytes are sent straight to the vault's bucket, where it offers that; else so that they go on where the
        connection was cut, for as long as some of them arrive within `patience`.
        """
        artifact = Artifact(digest=Digest.of(data), size=len(data)) if data else None
        if artifact is not None and artifact.size > WHOLE:
            self._send(data, artifact)
            return artifact
        digest = Digest.of(data)
        headers = {"Content-Type": "application/octet-stream"}
        answer = self.ask("PUT", f"/v1/blobs/{digest}", content=data, headers=headers)
        stored = self.parse(ArtifactBody.read, answer.data).value()
        if stored != artifact:
            raise ServiceError(f"The vault at {self.url} says it stored other bytes than were sent; do not trust it.")
        return stored

    def get(self, digest: Digest) -> bytes:
        """The bytes with this digest, verified while they arrive; a cut transfer goes on where it was.

        They come from the vault's bucket, where it says so and that is reached.

        Raises KnowledgeNotFoundError when they are not there, CorruptKnowledgeError when others came, and
        IncompatibleKnowledgeError when there are more than MAX_BLOB_BYTES.
        """
        download = Download(digest, self.url)
        straight = True

        def headers() -> dict[str, str]:
            return download.headers() | ({DIRECT_HEADER: "yes"} if straight and self._direct.open else {})

        def take(response: httpx.Response) -> bytes:
            return b"" if response.status_code == httpx.codes.TEMPORARY_REDIRECT else download.take(response)

        while True:
            before = download.furthest
            try:
                answer = self.ask("GET", f"/v1/blobs/{digest}", headers=headers, take=take)
            except ServiceUnavailableError:
                if self._patience and download.furthest > before:
                    continue  # patience is with a vault that sends nothing
                raise
            if answer.status != httpx.codes.TEMPORARY_REDIRECT:
                return download.verified()
            if not straight:
                raise ServiceError(f"The vault at {self.url} redirects who did not ask for it; do not trust it.")
            try:
                if self._direct.get(answer.headers.get("Location", ""), download):
                    return download.verified()
            except (KnowledgeError, ServiceError):  # it is not the blob: the vault has that, or says why
                download, straight = Download(digest, self.url), False
                continue
            straight = download.furthest > before  # else through the vault

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

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> None:
        """Promise to keep these blobs, each a sound artifact of the kind before it, for `holder`; all or none."""
        body = PinsBody.of(holder, artifacts)
        self.ask("POST", "/v1/pins", content=body.model_dump_json().encode(), repeatable=True)

    def unpin(self, holder: str) -> None:
        """Take back every promise to `holder`; without any, nothing changes."""
        self.ask("DELETE", "/v1/pins", params={"holder": holder}, repeatable=True)

    def pins(self, *, limit: int = 100, cursor: str | None = None) -> Page[Pin]:
        """Every promise, in order of holder and digest."""
        answer = self.ask("GET", "/v1/pins", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[PinBody].read, answer.data).value()

    def collect(self) -> Collection:
        """Have the vault remove now what nobody has held for its grace period."""
        return self.parse(CollectionBody.read, self.ask("POST", "/v1/collections", repeatable=True).data).value()

    def scrub(self, *, limit: int = 100, cursor: str | None = None) -> Scrub:
        """Have the vault hash its next blobs again and set the rotten aside; the cursor goes on after them."""
        params = {"limit": limit, "cursor": cursor}
        return self.parse(ScrubBody.read, self.ask("POST", "/v1/scrubs", params=params).data).value()

    def _send(self, data: bytes, artifact: Artifact) -> None:
        """Upload in as many requests as it takes."""
        upload = self._begin(artifact, direct=self._direct.open)
        if upload.direct is not None:
            upload = self._send_straight(upload, data)
        wait, given_up = WAIT_FIRST, time.monotonic() + self._patience
        while upload.id is not None:
            before = upload.offset
            try:
                upload = self._append(upload, data)
            except (ServiceUnavailableError, ConflictError, KnowledgeNotFoundError):
                # Cut; or the vault had more, or less, than we knew; or another vault answers, without that upload.
                if not self._patience:
                    raise
                upload = self._look_up(upload)
                if upload.id is not None and upload.offset > before:
                    wait, given_up = WAIT_FIRST, time.monotonic() + self._patience
                elif time.monotonic() + wait > given_up:
                    raise
                else:
                    time.sleep(wait)
                    wait = min(2 * wait, WAIT_MOST)

    def _send_straight(self, upload: Upload, data: bytes) -> Upload:
        """Put the bytes into the vault's bucket and tell the vault; where that fails, the upload that is left."""
        assert upload.direct is not None
        if not self._direct.put(upload.direct, data):
            return upload
        try:
            # Before it answers the vault reads all of it, and has it copied.
            seconds = ANSWER_SECONDS + upload.size / LOOKED_AT
            return self._told(self.ask("POST", f"/v1/uploads/{upload.id}", repeatable=True, seconds=seconds))
        except ConflictError:  # what took the bytes was not the vault's bucket
            return upload
        except (KnowledgeNotFoundError, ServiceUnavailableError):  # the answer was lost: it may be stored
            return self._begin(Artifact(digest=upload.digest, size=upload.size))

    def _begin(self, artifact: Artifact, *, direct: bool = False) -> Upload:
        told = AnnouncementBody(digest=str(artifact.digest), size=artifact.size, direct=direct)
        content = told.model_dump_json().encode()
        upload = self._told(self.ask("POST", "/v1/uploads", content=content, repeatable=True))
        if (upload.digest, upload.size) != (artifact.digest, artifact.size):
            raise ServiceError(f"The vault at {self.url} begins an upload of another blob; do not trust it.")
        return upload

    def _append(self, upload: Upload, data: bytes) -> Upload:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(upload.size - upload.offset),
            "Upload-Offset": str(upload.offset),
        }
        pieces = (data[start : start + PIECE] for start in range(upload.offset, upload.size, PIECE))
        return self._told(self.ask("PATCH", f"/v1/uploads/{upload.id}", content=pieces, headers=headers))

    def _look_up(self, upload: Upload) -> Upload:
        """How far an upload has come; begun again where the vault does not know it, for it may be over and done."""
        try:
            answer = self.ask("HEAD", f"/v1/uploads/{upload.id}", take=lambda _: b"")
        except KnowledgeNotFoundError:
            return self._begin(Artifact(digest=upload.digest, size=upload.size))
        offset = answer.headers.get("Upload-Offset", "")
        if not offset.isascii() or not offset.isdecimal() or int(offset) > upload.size:
            raise ServiceError(f"The vault at {self.url} does not tell how much has come; do not trust it.")
        return replace(upload, offset=int(offset))

    def _told(self, answer: Response) -> Upload:
        upload = self.parse(UploadBody.read, answer.data).value()
        if upload.offset > upload.size or (upload.id is None and upload.offset < upload.size):
            raise ServiceError(f"The vault at {self.url} tells of an upload that cannot be; do not trust it.")
        return upload

    def _announced(self, response: httpx.Response) -> int:
        return announced(response, self.url)
