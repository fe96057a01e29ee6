"""The Vault port over HTTP."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import httpx

from kuber.client.credentials import Credentials
from kuber.client.download import MAX_BLOB_BYTES, Download, content_length
from kuber.client.http import ANSWER_SECONDS, WAIT_FIRST, WAIT_MOST, HttpService, Response, Trusted
from kuber.client.presigned import PresignedTransfer
from kuber.domain.blob import Collection, Pin, Scrub, Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.domain.query import Page
from kuber.domain.whole_numbers import read_digits
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    KnowledgeError,
    KnowledgeNotFoundError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
)
from kuber.wire import DIRECT_HEADER
from kuber.wire.registry import ArtifactBody, PageBody
from kuber.wire.status import VaultStatusBody
from kuber.wire.vault import AnnouncementBody, CollectionBody, PinBody, PinnedBody, PinsBody, ScrubBody, UploadBody

SINGLE_REQUEST_BYTES = 8 << 20  # larger blobs are sent as resumable uploads
PIECE = 1 << 20
PART = 1 << 19  # body of a request where larger ones are refused; nginx takes 1 MiB unless it is configured
SMALLEST_PART = 1 << 16
VERIFY_RATE = 10 << 20  # bytes per second that a vault reads and copies in its bucket, at the slowest


class HttpVault(HttpService):
    """The vault at `url`, as `kuber.domain.ports.Vault`.

    Raises the errors of the port, and ServiceUnavailableError when the vault does not respond for `patience` seconds.
    """

    def __init__(
        self, url: str, *, credentials: Credentials | None = None, patience: float = 10.0, ca: Trusted = None
    ) -> None:
        """Use the credentials for which the registry issues tokens."""
        super().__init__(url, service="vault", patience=patience, credentials=credentials, ca=ca)
        self._presigned = PresignedTransfer(secure=self.url.startswith("https://"), ca=ca)
        self._largest_body = MAX_BLOB_BYTES  # less, once something in between has refused a larger one

    def close(self) -> None:
        """Close all connections."""
        self._presigned.close()
        super().close()

    def put(self, data: bytes) -> Artifact:
        """Store a blob. Idempotent.

        Large blobs are sent directly to the vault's bucket if it offers that, otherwise as an upload that is resumed
        after lost connections for as long as it makes progress within `patience` seconds. Where something in between
        refuses the size of a request, the blob is sent in parts.
        """
        artifact = Artifact(digest=Digest.of(data), size=len(data)) if data else None
        if artifact is not None and artifact.size > min(SINGLE_REQUEST_BYTES, self._largest_body):
            self._upload(data, artifact)
            return artifact
        digest = Digest.of(data)
        headers = {"Content-Type": "application/octet-stream"}
        try:
            answer = self.request("PUT", f"/v1/blobs/{digest}", content=data, headers=headers)
        except RequestRejectedError as refused:
            if artifact is None or not self._reduce_body(refused, artifact.size):
                raise
            self._upload_in_parts(data, artifact, refused)
            return artifact
        stored = self.parse(ArtifactBody.read, answer.data).value()
        if stored != artifact:
            raise ServiceError(
                f"The vault at {self.url} claims to have stored other bytes than were sent; do not trust it."
            )
        return stored

    def get(self, digest: Digest) -> bytes:
        """Return the bytes of a blob, verified while they arrive. A lost connection is resumed.

        They come from the vault's bucket if it redirects there and that is reachable. Raises KnowledgeNotFoundError
        when the blob is missing, CorruptKnowledgeError when its bytes have another digest, and
        IncompatibleKnowledgeError when there are more than MAX_BLOB_BYTES.
        """
        download = Download(digest, self.url)
        try_direct = True

        def headers() -> dict[str, str]:
            direct = try_direct and self._presigned.available
            return download.headers() | ({DIRECT_HEADER: "yes"} if direct else {})

        def receive(response: httpx.Response) -> bytes:
            redirected = response.status_code == httpx.codes.TEMPORARY_REDIRECT
            return b"" if redirected else download.receive(response)

        while True:
            before = download.furthest
            try:
                answer = self.request("GET", f"/v1/blobs/{digest}", headers=headers, read_body=receive)
            except ServiceUnavailableError:
                if self._patience and download.furthest > before:
                    continue  # patience is for a vault that sends nothing
                raise
            if answer.status != httpx.codes.TEMPORARY_REDIRECT:
                return download.verified()
            if not try_direct:
                raise ServiceError(f"The vault at {self.url} redirects without being asked to; do not trust it.")
            try:
                if self._presigned.get(answer.headers.get("Location", ""), download):
                    return download.verified()
            except (KnowledgeError, ServiceError):  # it is not the blob: the vault has that, or says why not
                download, try_direct = Download(digest, self.url), False
                continue
            try_direct = download.furthest > before  # otherwise through the vault

    def size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None when it is not stored."""
        headers = {"Accept-Encoding": "identity"}
        try:
            answer = self.request("HEAD", f"/v1/blobs/{digest}", headers=headers, read_body=_no_body)
        except KnowledgeNotFoundError:
            return None
        return content_length(answer.headers, self.url)

    def blobs(self, *, limit: int = 100, cursor: str | None = None) -> Page[Artifact]:
        """Return a page of the stored blobs, ordered by digest."""
        answer = self.request("GET", "/v1/blobs", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[ArtifactBody].read, answer.data).value()

    def pin(self, holder: str, artifacts: Iterable[tuple[str, Artifact]]) -> Mapping[Digest, Manifest]:
        """Keep these (kind, artifact) pairs for `holder`; all or none.

        Return the manifests of weights; none from a vault of a version that does not send them.
        """
        content = PinsBody.of(holder, artifacts).model_dump_json().encode()
        answer = self.request("POST", "/v1/pins", content=content, idempotent=True)
        return self.parse(PinnedBody.read, answer.data).value() if answer.data else {}

    def unpin(self, holder: str) -> None:
        """Delete all pins of `holder`. Idempotent."""
        self.request("DELETE", "/v1/pins", params={"holder": holder}, idempotent=True)

    def pins(self, *, limit: int = 100, cursor: str | None = None) -> Page[Pin]:
        """Return a page of the pins, ordered by holder and digest."""
        answer = self.request("GET", "/v1/pins", params={"limit": limit, "cursor": cursor})
        return self.parse(PageBody[PinBody].read, answer.data).value()

    def status(self, *, timeout: float | None = None) -> VaultStatusBody:
        """Return numbers of the vault, for the operator: blobs, uploads and sizes."""
        return self.parse(VaultStatusBody.read, self.request("GET", "/v1/status", timeout=timeout).data)

    def collect(self) -> Collection:
        """Let the vault delete blobs that have been free for its grace period, now."""
        return self.parse(CollectionBody.read, self.request("POST", "/v1/collections", idempotent=True).data).value()

    def scrub(self, *, limit: int = 100, cursor: str | None = None) -> Scrub:
        """Let the vault hash its next blobs again and quarantine the damaged ones; a cursor continues after them."""
        params = {"limit": limit, "cursor": cursor}
        return self.parse(ScrubBody.read, self.request("POST", "/v1/scrubs", params=params).data).value()

    def _reduce_body(self, refused: RequestRejectedError, size: int) -> bool:
        """Send smaller bodies from now on, and return whether they may be accepted."""
        if not refused.too_large or size <= SMALLEST_PART:
            return False
        self._largest_body = PART if size > PART else max(size // 2, SMALLEST_PART)
        return True

    def _upload_in_parts(self, data: bytes, artifact: Artifact, refused: RequestRejectedError) -> None:
        """Send a blob that was `refused` as a whole. If parts are refused too, raise that first refusal."""
        try:
            self._upload(data, artifact)
        except ServiceError as error:
            self._largest_body = MAX_BLOB_BYTES
            if type(error) not in (ServiceError, RequestRejectedError):
                raise
            raise refused from None

    def _upload(self, data: bytes, artifact: Artifact) -> None:
        """Send a blob in as many requests as it takes."""
        upload = self._begin(artifact, direct=self._presigned.available)
        repeats = 1 if upload.offset else 0  # the vault has bytes of an earlier attempt, which may be others
        if upload.direct is not None:
            upload = self._upload_direct(upload, data)
        wait, deadline = WAIT_FIRST, time.monotonic() + self._patience
        first_refusal: RequestRejectedError | None = None
        while upload.id is not None:
            before = upload.offset
            try:
                upload = self._append(upload, data)
                wait, deadline = WAIT_FIRST, time.monotonic() + self._patience
            except RequestRejectedError as refused:
                first_refusal = first_refusal or refused
                if not self._reduce_body(refused, min(upload.size - before, self._largest_body)):
                    self._largest_body = MAX_BLOB_BYTES
                    raise first_refusal from None
            except CorruptKnowledgeError:
                if not repeats:
                    raise
                repeats, upload = repeats - 1, self._begin(artifact)
            except (ServiceUnavailableError, ConflictError, KnowledgeNotFoundError):
                # The connection was lost, the vault has another offset, or it is another vault without the upload.
                if not self._patience:
                    raise
                upload = self._refresh(upload)
                if upload.id is not None and upload.offset > before:
                    wait, deadline = WAIT_FIRST, time.monotonic() + self._patience
                elif time.monotonic() + wait > deadline:
                    raise
                else:
                    time.sleep(wait)
                    wait = min(2 * wait, WAIT_MOST)

    def _upload_direct(self, upload: Upload, data: bytes) -> Upload:
        """Send the bytes to the vault's bucket and complete the upload; if that fails, return what is left to do."""
        assert upload.direct is not None
        if not self._presigned.put(upload.direct, data):
            return upload
        try:
            # Before it responds, the vault reads and copies the whole object.
            seconds = ANSWER_SECONDS + upload.size / VERIFY_RATE
            answer = self.request("POST", f"/v1/uploads/{upload.id}", idempotent=True, timeout=seconds)
            return self._parse_upload(answer)
        except ConflictError:  # the bytes went to something else than the vault's bucket
            return upload
        except (KnowledgeNotFoundError, ServiceUnavailableError):  # the response was lost: it may be stored
            return self._begin(Artifact(digest=upload.digest, size=upload.size))

    def _begin(self, artifact: Artifact, *, direct: bool = False) -> Upload:
        body = AnnouncementBody(digest=artifact.digest, size=artifact.size, direct=direct)
        content = body.model_dump_json().encode()
        upload = self._parse_upload(self.request("POST", "/v1/uploads", content=content, idempotent=True))
        if (upload.digest, upload.size) != (artifact.digest, artifact.size):
            raise ServiceError(f"The vault at {self.url} began an upload of another blob; do not trust it.")
        return upload

    def _append(self, upload: Upload, data: bytes) -> Upload:
        end = min(upload.size, upload.offset + self._largest_body)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - upload.offset),
            "Upload-Offset": str(upload.offset),
        }
        pieces = (data[start : min(start + PIECE, end)] for start in range(upload.offset, end, PIECE))
        answer = self.request("PATCH", f"/v1/uploads/{upload.id}", content=pieces, headers=headers)
        return self._parse_upload(answer)

    def _refresh(self, upload: Upload) -> Upload:
        """Return the state of an upload. Begin it again if the vault does not know it, as it may be complete."""
        try:
            answer = self.request("HEAD", f"/v1/uploads/{upload.id}", read_body=_no_body)
        except KnowledgeNotFoundError:
            return self._begin(Artifact(digest=upload.digest, size=upload.size))
        offset = read_digits(answer.headers.get("Upload-Offset", ""))
        if offset is None or offset > upload.size:
            raise ServiceError(f"The vault at {self.url} does not say how much it has received; do not trust it.")
        return replace(upload, offset=offset)

    def _parse_upload(self, answer: Response) -> Upload:
        upload = self.parse(UploadBody.read, answer.data).value()
        if upload.offset > upload.size or (upload.id is None and upload.offset < upload.size):
            raise ServiceError(f"The vault at {self.url} describes an impossible upload; do not trust it.")
        return upload


def _no_body(_response: httpx.Response) -> bytes:
    return b""
