"""The vault over HTTP."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from kuber.domain.auth import Caller, Scope
from kuber.domain.digest import Digest
from kuber.domain.event import utc_now
from kuber.domain.query import MAX_LIMIT
from kuber.domain.whole_numbers import read_digits
from kuber.errors import KnowledgeNotFoundError, KUberError, SettingsError
from kuber.services.http.application import REQUESTS_PER_MINUTE, application, status_of
from kuber.services.http.auth import Authenticate, Authenticator
from kuber.services.vault.auth import VaultAccess
from kuber.services.vault.garbage_collection import GRACE, PERIOD, collect, periodic_collection
from kuber.services.vault.metrics import VaultMetrics
from kuber.services.vault.pinning import Pinned, PinRequest
from kuber.services.vault.scrub import scrub
from kuber.services.vault.status import read_status
from kuber.services.vault.store import LEASE, VaultStore
from kuber.services.vault.streaming import (
    BINARY,
    bounded,
    parse_range,
    pieces_from,
    pieces_of,
    too_large,
    write_pieces,
)
from kuber.services.vault.upload_routes import add_upload_routes
from kuber.services.vault.uploads import EXPIRY, Uploads
from kuber.wire import DIRECT_HEADER
from kuber.wire.base import DigestText
from kuber.wire.problem import problem_from
from kuber.wire.registry import ArtifactBody, PageBody
from kuber.wire.status import VaultStatusBody
from kuber.wire.vault import (
    CollectionBody,
    OwnerBody,
    PinBatchBody,
    PinBody,
    PinnedBody,
    PinResultBody,
    PinResultsBody,
    PinsBody,
    ScrubBody,
)

if TYPE_CHECKING:
    from kuber.services.vault.presigned import PresignedUrls
    from kuber.services.vault.s3 import S3Storage

MAX_BLOB_BYTES = 2 << 30

_SENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": BINARY},
    206: {"description": "The bytes of the requested range.", "content": BINARY},
    304: {"description": "The caller has the bytes already."},
    307: {"description": "Redirection to a temporary URL of the bytes, for callers that sent KUber-Direct."},
}

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=4000)]
Holder = Annotated[str, Query(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSchedule:
    """How long a vault keeps blobs without a pin and idle uploads, and how often it deletes them."""

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
    total_quota: int = 0,
    keep_free: int | None = None,
    schedule: CollectionSchedule | None = None,
    bucket: str | None = None,
    direct: bool = False,
    direct_url: str | None = None,
    ca: Path | None = None,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> Iterator[FastAPI]:
    """Open the application on the data in `folder`, which it locks; the registry at that URL authenticates callers.

    With `database`, the URL of a PostgreSQL database, the index is there instead of in the folder; with `bucket`, a
    URL, the bytes are there. With `direct`, callers may transfer bytes directly to and from the bucket, at the
    endpoint `direct_url` if they reach it by another one than the vault. `keep_free` is how many bytes of the disk
    stay free, by default a twentieth of it, at most 1 GiB.
    """
    schedule = schedule or CollectionSchedule()
    if (direct and bucket is None) or (direct_url is not None and not direct):
        raise SettingsError("--direct requires --store, and --direct-url requires --direct.")
    storage, presigned = None, None
    if bucket is not None:
        storage, urls = _open_bucket(bucket, direct_url, folder, max_blob_bytes, schedule)
        presigned = urls if direct else None
    with (
        contextlib.closing(VaultAccess(registry, secret, ca=ca)) as access,
        contextlib.closing(
            VaultStore(
                folder,
                storage=storage,
                database=database,
                lease=schedule.lease,
                quota=entity_quota,
                total_quota=total_quota,
                keep_free=keep_free,
            )
        ) as store,
    ):
        uploads = Uploads(store, expiry=schedule.upload_expiry, presigned=presigned)
        metrics = VaultMetrics(store, uploads)
        with periodic_collection(
            store, uploads, period=schedule.period, grace=schedule.grace, on_collection=metrics.count_collection
        ):
            yield vault_app(
                store,
                uploads,
                access.caller,
                metrics,
                secret=secret,
                presigned=presigned,
                max_blob_bytes=max_blob_bytes,
                grace=schedule.grace,
                requests_per_minute=requests_per_minute,
            )


def _open_bucket(
    url: str, public_endpoint: str | None, folder: Path, max_blob_bytes: int, schedule: CollectionSchedule
) -> "tuple[S3Storage, PresignedUrls]":
    """Open the storage in the bucket at this URL, for an index in `folder`. SettingsError when it cannot be used."""
    try:
        from kuber.services.vault.presigned import PresignedUrls
        from kuber.services.vault.s3 import S3Storage
        from kuber.services.vault.s3_client import MAX_COPY, Bucket
    except ImportError:
        raise SettingsError("A vault in a bucket needs obstore: pip install 'kuber[s3]'.") from None
    if max_blob_bytes > MAX_COPY:
        raise SettingsError(f"A bucket accepts blobs of at most {MAX_COPY} bytes; choose a smaller --max-blob-bytes.")
    if (folder / "blobs").exists():
        raise SettingsError(f"The folder {folder / 'blobs'} holds blobs; choose another --data to use with --store.")
    storage = S3Storage(Bucket(url, public_endpoint=public_endpoint), expiry=schedule.upload_expiry)
    return storage, PresignedUrls(storage)


def vault_app(
    store: VaultStore,
    uploads: Uploads,
    authenticate: Authenticate,
    metrics: VaultMetrics,
    *,
    secret: str | None = None,
    presigned: "PresignedUrls | None" = None,
    max_blob_bytes: int = MAX_BLOB_BYTES,
    grace: timedelta = GRACE,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> FastAPI:
    """Create the application with the routes of the vault."""
    run_read = store.database.run_read
    auth = Authenticator(authenticate)
    app = application(
        "vault",
        description="Blobs by digest.",
        metrics=metrics,
        secret=secret,
        requests_per_minute=requests_per_minute,
    )

    @app.put(
        "/v1/blobs/{digest}",
        operation_id="put_blob",
        responses={200: {"model": ArtifactBody}, 201: {"model": ArtifactBody}},
        openapi_extra={"requestBody": {"required": True, "content": BINARY}},
    )
    async def put(
        digest: DigestText,
        request: Request,
        response: Response,
        caller: Annotated[Caller, auth.require(Scope.ENTITY, Scope.SERVICE, kind="transfer")],
    ) -> ArtifactBody:
        """Store the bytes of the body: 201 when they are new, 200 when the vault had them already."""
        length = read_digits(request.headers.get("content-length", "")) or 0
        if length > max_blob_bytes:
            raise too_large(max_blob_bytes)
        declared = Digest.parse(digest)
        reservation = await run_read(store.receiving.begin, declared, length, owner=caller.entity)
        with contextlib.closing(reservation), store.create() as writer:

            def write(piece: memoryview) -> None:
                reservation.receive(len(piece))
                writer.write(piece)

            await write_pieces(bounded(pieces_of(request), max_blob_bytes), write)
            await auth.confirm(request)
            artifact, new = await run_in_threadpool(
                store.commit, writer, declared, owner=caller.entity, reservation=reservation
            )
        response.status_code = 201 if new else 200
        return ArtifactBody.of(artifact)

    @app.get("/v1/blobs/{digest}", operation_id="get_blob", response_class=Response, responses=_SENT)
    @app.head("/v1/blobs/{digest}", operation_id="head_blob", response_class=Response, responses=_SENT)
    async def get(
        digest: DigestText,
        request: Request,
        caller: Annotated[Caller, auth.require(*Scope, kind="transfer")],
        range_: Annotated[str | None, Header(alias="Range", description="One range, as bytes=first-last.")] = None,
        if_range: Annotated[str | None, Header(description="Send the range only if the ETag is this one.")] = None,
        if_none_match: Annotated[str | None, Header()] = None,
        accept_redirect: Annotated[
            str | None,
            Header(
                alias=DIRECT_HEADER, description="With any value, the caller accepts a redirection to the bucket."
            ),
        ] = None,
    ) -> Response:
        """Return the bytes with this digest, a range of them, or a redirection to them. The reader verifies them."""
        tag = f'"{digest}"'
        with contextlib.ExitStack() as stack:
            blob = stack.enter_context(await run_read(store.open, Digest.parse(digest)))
            if if_none_match is not None and tag in if_none_match:
                return Response(status_code=304, headers={"ETag": tag})
            if presigned is not None and accept_redirect is not None and request.method == "GET":
                target = await run_in_threadpool(presigned.download_url, Digest.parse(digest))
                return Response(status_code=307, headers={"Location": target.url, "Cache-Control": "no-store"})
            size = blob.size
            use_range = request.method == "GET" and if_range in (None, tag)  # RFC 9110, sections 13.1.5 and 14.2
            span = parse_range(range_, size) if use_range else None
            first, last = span or (0, size - 1)
            headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
            if span:
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            status, media = 206 if span else 200, "application/octet-stream"
            if request.method == "HEAD":
                return Response(status_code=status, headers=headers, media_type=media)
            await run_in_threadpool(blob.seek_range, first, last)
            stack.pop_all()  # the response closes the blob
            return StreamingResponse(pieces_from(blob, last - first + 1), status, headers, media)

    add_upload_routes(app, uploads, auth, max_blob_bytes)
    _add_retention_routes(app, store, uploads, auth, grace, metrics, max_blob_bytes)
    return app


def _add_retention_routes(
    app: FastAPI,
    store: VaultStore,
    uploads: Uploads,
    auth: Authenticator,
    grace: timedelta,
    metrics: VaultMetrics,
    max_blob_bytes: int,
) -> None:
    run_read = store.database.run_read
    operators = auth.require(Scope.SERVICE, Scope.ADMIN)

    # An entity that lists digests could publish the file of another one before its owner does.
    @app.get("/v1/blobs", operation_id="list_blobs")
    async def blobs(
        caller: Annotated[Caller, operators], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[ArtifactBody]:
        """Return a page of the stored blobs, ordered by digest."""
        return PageBody[ArtifactBody].of(await run_read(store.blobs, limit=limit, cursor=cursor))

    @app.get("/v1/blobs/{digest}/owner", operation_id="blob_owner")
    async def owner(digest: DigestText, caller: Annotated[Caller, operators]) -> OwnerBody:
        """Return the entity that was the first to upload a blob, and when it was stored."""
        found = await run_read(store.owner, Digest.parse(digest))
        if found is None:
            raise KnowledgeNotFoundError(f"The vault has no blob {digest}.")
        return OwnerBody.of(found)

    @app.post("/v1/pins", operation_id="pin_blobs")
    def pin(body: PinsBody, caller: Annotated[Caller, operators]) -> PinnedBody:
        """Keep these blobs, valid artifacts of their kinds, for the holder; all or none."""
        (result,) = store.pin_all([_pin_request(body, max_blob_bytes)])
        if isinstance(result, KUberError):
            raise result
        return PinnedBody.of(result)

    @app.post("/v1/pins/batch", operation_id="pin_blobs_of_several")
    def pin_batch(body: PinBatchBody, caller: Annotated[Caller, operators]) -> PinResultsBody:
        """Keep blobs for several holders, each as POST /v1/pins does: one that is refused does not affect others."""
        results = store.pin_all(_pin_request(each, max_blob_bytes) for each in body.holders)
        return PinResultsBody(results=tuple(map(_pin_result, results)))

    @app.delete("/v1/pins", operation_id="unpin_blobs", status_code=204)
    def unpin(holder: Holder, caller: Annotated[Caller, operators]) -> None:
        """Delete all pins of a holder."""
        store.unpin(holder)

    @app.get("/v1/pins", operation_id="list_pins")
    async def pins(
        caller: Annotated[Caller, operators], limit: Limit = 100, cursor: Cursor = None
    ) -> PageBody[PinBody]:
        """Return a page of the pins, ordered by holder and digest."""
        return PageBody[PinBody].of(await run_read(store.pins, limit=limit, cursor=cursor))

    @app.get("/v1/status", operation_id="status")
    def status(caller: Annotated[Caller, operators]) -> VaultStatusBody:
        """Return one page of numbers: blobs, uploads and sizes."""
        return read_status(store, uploads, utc_now())

    @app.post("/v1/collections", operation_id="collect")
    def collect_now(caller: Annotated[Caller, operators]) -> CollectionBody:
        """Delete the blobs that have been free for the grace period, now."""
        done = collect(store, uploads, grace=grace)
        metrics.count_collection(done)
        return CollectionBody.of(done)

    @app.post("/v1/scrubs", operation_id="scrub")
    def scrub_now(caller: Annotated[Caller, operators], limit: Limit = 100, cursor: Cursor = None) -> ScrubBody:
        """Hash the next stored blobs again and quarantine the damaged ones."""
        done = scrub(store, limit=limit, cursor=cursor)
        metrics.count_scrub(done)
        return ScrubBody.of(done)


def _pin_request(body: PinsBody, max_blob_bytes: int) -> PinRequest:
    """Return the request, without blobs that are too large: they count as not sent."""
    pairs = body.pairs()
    sizes = {artifact.digest: artifact.size for _, artifact in pairs}
    sent = {digest: data for digest, data in body.blobs.items() if sizes.get(digest, 0) <= max_blob_bytes}
    return PinRequest(holder=body.holder, artifacts=pairs, owner=body.owner, sent=sent)


def _pin_result(result: Pinned) -> PinResultBody:
    if isinstance(result, KUberError):
        return PinResultBody(problem=problem_from(result, status_of(result)))
    return PinResultBody(pinned=PinnedBody.of(result))
