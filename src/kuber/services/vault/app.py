"""The vault over HTTP."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from kuber.domain.auth import Caller, Scope
from kuber.domain.blob import Upload
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact
from kuber.domain.query import MAX_LIMIT
from kuber.errors import SettingsError
from kuber.services.http.application import REQUESTS_PER_MINUTE, application
from kuber.services.http.auth import Authenticate, Authenticator
from kuber.services.vault.auth import VaultAccess
from kuber.services.vault.garbage_collection import GRACE, PERIOD, collect, collecting
from kuber.services.vault.metrics import VaultMetrics
from kuber.services.vault.scrub import scrub
from kuber.services.vault.store import LEASE, VaultStore
from kuber.services.vault.streaming import bounded, pieces_from, pieces_of, span_of, too_large, write_pieces
from kuber.services.vault.uploads import EXPIRY, Uploads
from kuber.wire import (
    DIRECT_HEADER,
    AnnouncementBody,
    ArtifactBody,
    CollectionBody,
    DigestText,
    PageBody,
    PinBody,
    PinsBody,
    ScrubBody,
    UploadBody,
)

if TYPE_CHECKING:
    from kuber.services.vault.presigned import PresignedUrls
    from kuber.services.vault.s3 import S3Storage

MAX_BLOB_BYTES = 2 << 30

_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_SENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": _BINARY},
    206: {"description": "The bytes of the range asked for.", "content": _BINARY},
    304: {"description": "The caller has them already."},
    307: {"description": "Where the bytes are, for a while; only for a caller that said KUber-Direct."},
}


Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=4000)]
UploadId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
Holder = Annotated[str, Query(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSchedule:
    """For how long the vault keeps what nobody pins, and how often it looks."""

    lease: timedelta = LEASE
    grace: timedelta = GRACE
    period: timedelta = PERIOD
    upload_expiry: timedelta = EXPIRY


@contextlib.contextmanager
def open_vault(
    folder: Path,
    *,
    registry: str,
    secret: str,
    database: str | None = None,
    max_blob_bytes: int = MAX_BLOB_BYTES,
    entity_quota: int = 0,
    keeping: CollectionSchedule | None = None,
    bucket: str | None = None,
    direct: bool = False,
    direct_url: str | None = None,
    ca: Path | None = None,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> Iterator[FastAPI]:
    """The application on the data in `folder`, which it holds meanwhile; the registry tells it whom to serve.

    With `database`, the URL of a PostgreSQL database, the index is there and only files are in the folder.
    The bytes lie in `folder` too, or in the `bucket` of this URL; with `direct` callers may be sent there, to its
    endpoint `direct_url` where they reach it by another one.
    """
    kept = keeping or CollectionSchedule()
    if (direct and bucket is None) or (direct_url is not None and not direct):
        raise SettingsError("--direct is for a vault with --store, and --direct-url for one with --direct.")
    shelves = None if bucket is None else _bucket_shelves(bucket, direct_url, folder, max_blob_bytes, kept)
    with (
        contextlib.closing(VaultAccess(registry, secret, ca=ca)) as access,
        contextlib.closing(
            VaultStore(folder, shelves=shelves, database=database, lease=kept.lease, quota=entity_quota)
        ) as store,
    ):
        straight = _direct(shelves) if direct and shelves is not None else None
        uploads = Uploads(store, expiry=kept.upload_expiry, direct=straight)
        counted = VaultMetrics(store, uploads)
        with collecting(store, uploads, period=kept.period, grace=kept.grace, tell=counted.collected):
            yield vault_app(
                store,
                uploads,
                access.caller,
                counted,
                direct=straight,
                max_blob_bytes=max_blob_bytes,
                grace=kept.grace,
                requests_per_minute=requests_per_minute,
            )


def _bucket_shelves(
    url: str, clients: str | None, folder: Path, max_blob_bytes: int, keeping: CollectionSchedule
) -> "S3Storage":
    """Shelves in the bucket of this URL, for an index in `folder`. SettingsError when they are not possible."""
    try:
        from kuber.services.vault.s3 import S3Storage
        from kuber.services.vault.s3_client import MAX_COPY, Bucket
    except ImportError:
        raise SettingsError("A vault in a bucket needs obstore: pip install 'kuber[s3]'.") from None
    if max_blob_bytes > MAX_COPY:
        raise SettingsError(f"A bucket takes blobs of at most {MAX_COPY} bytes; give a smaller --max-blob-bytes.")
    if (folder / "blobs").exists():
        raise SettingsError(f"The blobs of this vault are in {folder / 'blobs'}; give --store a --data of its own.")
    return S3Storage(Bucket(url, clients=clients), expiry=keeping.upload_expiry)


def _direct(shelves: "S3Storage") -> "PresignedUrls":
    from kuber.services.vault.presigned import PresignedUrls

    return PresignedUrls(shelves)


def vault_app(
    store: VaultStore,
    uploads: Uploads,
    authenticate: Authenticate,
    counted: VaultMetrics,
    *,
    direct: "PresignedUrls | None" = None,
    max_blob_bytes: int = MAX_BLOB_BYTES,
    grace: timedelta = GRACE,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> FastAPI:
    """The routes of the vault, on this store."""
    run_read = store.database.run_read
    guard = Authenticator(authenticate)
    readers = guard.require(*Scope)
    app = application(
        "vault",
        description="Blobs by digest.",
        metrics=counted.metrics,
        requests_per_minute=requests_per_minute,
    )

    @app.put(
        "/v1/blobs/{digest}",
        operation_id="put_blob",
        responses={200: {"model": ArtifactBody}, 201: {"model": ArtifactBody}},
        openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
    )
    async def put(
        digest: DigestText,
        request: Request,
        response: Response,
        caller: Annotated[Caller, guard.require(Scope.ENTITY, Scope.SERVICE)],
    ) -> ArtifactBody:
        """Store the bytes of the body: 201 when they are new, 200 when they were there already."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > max_blob_bytes:
            raise too_large(max_blob_bytes)
        named = Digest.parse(digest)
        if length.isdigit() and int(length):
            artifact = Artifact(digest=named, size=int(length))
            await run_read(store.check_room, artifact, owner=caller.entity)
        with store.receive(owner=caller.entity) as blob:
            await write_pieces(bounded(pieces_of(request), max_blob_bytes), blob.write)
            artifact, new = await run_in_threadpool(blob.keep, named)
        response.status_code = 201 if new else 200
        return ArtifactBody.of(artifact)

    @app.get("/v1/blobs/{digest}", operation_id="get_blob", response_class=Response, responses=_SENT)
    @app.head("/v1/blobs/{digest}", operation_id="head_blob", response_class=Response, responses=_SENT)
    async def get(
        digest: DigestText,
        request: Request,
        caller: Annotated[Caller, readers],
        range_: Annotated[str | None, Header(alias="Range", description="One range, as bytes=first-last.")] = None,
        if_range: Annotated[str | None, Header(description="Send the range only of this ETag.")] = None,
        if_none_match: Annotated[str | None, Header()] = None,
        elsewhere: Annotated[
            str | None,
            Header(alias=DIRECT_HEADER, description="With any value: a redirection to the bucket will do."),
        ] = None,
    ) -> Response:
        """The bytes with this digest, or one range of them, or where to read them. The reader verifies them."""
        tag = f'"{digest}"'
        with contextlib.ExitStack() as stack:
            blob = stack.enter_context(await run_read(store.open, Digest.parse(digest)))
            if if_none_match is not None and tag in if_none_match:
                return Response(status_code=304, headers={"ETag": tag})
            if direct is not None and elsewhere is not None and request.method == "GET":
                there = await run_in_threadpool(direct.download_url, Digest.parse(digest))
                return Response(status_code=307, headers={"Location": there.url, "Cache-Control": "no-store"})
            size = blob.size
            ranged = request.method == "GET" and if_range in (None, tag)  # RFC 9110, sections 13.1.5 and 14.2
            span = span_of(range_, size) if ranged else None
            first, last = span or (0, size - 1)
            headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
            if span:
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            status, media = 206 if span else 200, "application/octet-stream"
            if request.method == "HEAD":
                return Response(status_code=status, headers=headers, media_type=media)
            await run_in_threadpool(blob.span, first, last)
            stack.pop_all()  # the stream closes the blob
            return StreamingResponse(pieces_from(blob, last - first + 1), status, headers, media)

    @app.get("/v1/blobs", operation_id="list_blobs")
    async def blobs(
        caller: Annotated[Caller, readers], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[ArtifactBody]:
        """What is stored, in order of digest."""
        return PageBody[ArtifactBody].of(await run_read(store.blobs, limit=limit, cursor=cursor))

    _add_uploads(app, uploads, guard, max_blob_bytes)
    _add_keeping(app, store, uploads, guard, grace, counted)
    return app


def _add_uploads(app: FastAPI, uploads: Uploads, guard: Authenticator, max_blob_bytes: int) -> None:
    senders = guard.require(Scope.ENTITY, Scope.SERVICE)

    @app.post(
        "/v1/uploads",
        operation_id="begin_upload",
        status_code=201,
        responses={200: {"model": UploadBody, "description": "The vault has the blob already."}},
    )
    def begin(body: AnnouncementBody, response: Response, caller: Annotated[Caller, senders]) -> UploadBody:
        """Announce a blob that is sent in pieces: 201, or 200 without an id when there is nothing left to send.

        Asked for `direct`, a vault that can tells where to put the bytes instead; the upload is completed then.
        """
        if body.size > max_blob_bytes:
            raise too_large(max_blob_bytes)
        upload = uploads.begin(body.value(), owner=caller.entity, direct=body.direct)
        response.status_code = 200 if upload.id is None else 201
        return UploadBody.of(upload)

    @app.head("/v1/uploads/{id}", operation_id="head_upload", response_class=Response)
    def offset(id: UploadId, caller: Annotated[Caller, senders]) -> Response:
        """How much has come, as Upload-Offset, and how much will in the end, as Upload-Length."""
        upload = uploads.upload(id)
        return Response(headers={"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.size)})

    @app.post("/v1/uploads/{id}", operation_id="complete_upload", status_code=201)
    def complete(id: UploadId, caller: Annotated[Caller, senders]) -> UploadBody:
        """Store the blob that was put where the upload's `direct` tells. Nothing is there: 409; other bytes: 422."""
        artifact, _ = uploads.fetch(id)
        return UploadBody.of(Upload(id=None, digest=artifact.digest, size=artifact.size, offset=artifact.size))

    @app.patch(
        "/v1/uploads/{id}",
        operation_id="continue_upload",
        responses={201: {"model": UploadBody, "description": "That was all, and the blob is stored."}},
        openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
    )
    async def append(
        id: UploadId,
        request: Request,
        response: Response,
        caller: Annotated[Caller, senders],
        offset: Annotated[int, Header(alias="Upload-Offset", ge=0, lt=2**63, description="Bytes sent before.")],
    ) -> UploadBody:
        """Append the body: 200 while bytes are missing, 201 when the blob is stored. Not from another offset: 409."""
        turn = await run_in_threadpool(uploads.enter, id, offset)
        await write_pieces(pieces_of(request), turn.write)
        stored = await run_in_threadpool(uploads.complete, turn)
        if stored is None:
            return UploadBody.of(uploads.upload(id))
        response.status_code = 201
        artifact, _ = stored
        return UploadBody.of(Upload(id=None, digest=artifact.digest, size=artifact.size, offset=artifact.size))


def _add_keeping(
    app: FastAPI, store: VaultStore, uploads: Uploads, guard: Authenticator, grace: timedelta, counted: VaultMetrics
) -> None:
    run_read = store.database.run_read
    keepers = guard.require(Scope.SERVICE, Scope.ADMIN)

    @app.post("/v1/pins", operation_id="pin_blobs", status_code=204)
    def pin(body: PinsBody, caller: Annotated[Caller, keepers]) -> None:
        """Promise to keep these blobs, sound artifacts of their kinds, for the holder; all or none."""
        store.pin(body.holder, body.pairs())

    @app.delete("/v1/pins", operation_id="unpin_blobs", status_code=204)
    def unpin(holder: Holder, caller: Annotated[Caller, keepers]) -> None:
        """Take back every promise to a holder."""
        store.unpin(holder)

    @app.get("/v1/pins", operation_id="list_pins")
    async def pins(
        caller: Annotated[Caller, keepers], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[PinBody]:
        """Every promise, in order of holder and digest."""
        return PageBody[PinBody].of(await run_read(store.pins, limit=limit, cursor=cursor))

    @app.post("/v1/collections", operation_id="collect")
    def collect_now(caller: Annotated[Caller, keepers]) -> CollectionBody:
        """Remove what nobody has held for the grace period, now."""
        done = collect(store, uploads, grace=grace)
        counted.collected(done)
        return CollectionBody.of(done)

    @app.post("/v1/scrubs", operation_id="scrub")
    def scrub_now(caller: Annotated[Caller, keepers], limit: Limit = 100, cursor: Cursor = None) -> ScrubBody:
        """Hash the next stored blobs again and set the rotten aside."""
        done = scrub(store, limit=limit, cursor=cursor)
        counted.scrubbed(done)
        return ScrubBody.of(done)
