"""The vault over HTTP."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import FastAPI, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from kuber.domain.access import Caller, Scope
from kuber.domain.digest import Digest
from kuber.domain.query import MAX_LIMIT
from kuber.services.guard import Authenticate, Guard
from kuber.services.http import REQUESTS_PER_MINUTE, application
from kuber.services.vault_access import VaultAccess
from kuber.services.vault_store import CHUNK, VaultStore
from kuber.wire import ArtifactBody, DigestText, PageBody, PinsBody

MAX_BLOB_BYTES = 2 << 30
_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")

_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_SENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": _BINARY},
    206: {"description": "The bytes of the range asked for.", "content": _BINARY},
    304: {"description": "The caller has them already."},
}


@contextlib.contextmanager
def open_vault(
    folder: Path,
    *,
    registry: str,
    secret: str,
    max_blob_bytes: int = MAX_BLOB_BYTES,
    ca: Path | None = None,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> Iterator[FastAPI]:
    """The application on the data in `folder`, which it holds meanwhile; the registry tells it whom to serve."""
    with (
        contextlib.closing(VaultAccess(registry, secret, ca=ca)) as access,
        contextlib.closing(VaultStore(folder)) as store,
    ):
        yield vault_app(store, access.caller, max_blob_bytes=max_blob_bytes, requests_per_minute=requests_per_minute)


def vault_app(
    store: VaultStore,
    authenticate: Authenticate,
    *,
    max_blob_bytes: int = MAX_BLOB_BYTES,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
) -> FastAPI:
    """The routes of the vault, on this store."""
    guard = Guard(authenticate)
    readers = guard.admits(*Scope)
    app = application("vault", description="Blobs by digest.", requests_per_minute=requests_per_minute)

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
        caller: Annotated[Caller, guard.admits(Scope.ENTITY, Scope.SERVICE)],
    ) -> ArtifactBody:
        """Store the bytes of the body: 201 when they are new, 200 when they were there already."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > max_blob_bytes:
            raise _too_large(max_blob_bytes)
        with store.receive() as blob:
            piece = bytearray()
            async for chunk in request.stream():
                piece += chunk
                if blob.size + len(piece) > max_blob_bytes:
                    raise _too_large(max_blob_bytes)
                if len(piece) >= CHUNK:
                    await run_in_threadpool(blob.write, piece)
                    piece = bytearray()
            await run_in_threadpool(blob.write, piece)
            artifact, new = await run_in_threadpool(blob.keep, Digest.parse(digest))
        response.status_code = 201 if new else 200
        return ArtifactBody.of(artifact)

    @app.get("/v1/blobs/{digest}", operation_id="get_blob", response_class=Response, responses=_SENT)
    @app.head("/v1/blobs/{digest}", operation_id="head_blob", response_class=Response, responses=_SENT)
    async def get(
        digest: DigestText,
        request: Request,
        caller: Annotated[Caller, readers],
        range_: Annotated[str | None, Header(alias="Range", description="One range, as bytes=first-last.")] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The bytes with this digest, or one range of them. The reader verifies them."""
        tag = f'"{digest}"'
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(store.open(Digest.parse(digest)))
            if if_none_match is not None and tag in if_none_match:
                return Response(status_code=304, headers={"ETag": tag})
            size = file.seek(0, 2)
            span = _span(range_, size)
            first, last = span or (0, size - 1)
            headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
            if span:
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            status, media = 206 if span else 200, "application/octet-stream"
            if request.method == "HEAD":
                return Response(status_code=status, headers=headers, media_type=media)
            stack.pop_all()  # the stream closes the file
            return StreamingResponse(_read(file, first, last), status, headers, media)

    @app.get("/v1/blobs", operation_id="list_blobs")
    async def blobs(
        caller: Annotated[Caller, readers],
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> PageBody[ArtifactBody]:
        """What is stored, in order of digest."""
        return PageBody[ArtifactBody].of(store.blobs(limit=limit, cursor=cursor))

    @app.post("/v1/pins", operation_id="pin_blobs", status_code=204)
    def pin(body: PinsBody, caller: Annotated[Caller, guard.admits(Scope.SERVICE)]) -> None:
        """Promise to keep these blobs for the holder, all or none."""
        store.pin(body.holder, [artifact.value() for artifact in body.artifacts])

    return app


def _too_large(limit: int) -> HTTPException:
    message = f"The vault takes blobs of at most {limit} bytes; start it with a larger --max-blob-bytes."
    return HTTPException(413, message, {"connection": "close"})


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header; None to send the whole (RFC 9110 lets a server ignore odd ranges)."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == (None, None):
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        assert last is not None
        span = max(size - last, 0), size - 1
    elif last is not None and last < first:
        return None
    else:
        span = first, size - 1 if last is None else min(last, size - 1)
    if span[0] > span[1]:
        raise HTTPException(
            416, f"The blob has only {size} bytes; ask for a range within.", {"Content-Range": f"bytes */{size}"}
        )
    return span


async def _read(file: BinaryIO, first: int, last: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(first)
        left = last - first + 1
        while left and (piece := await run_in_threadpool(file.read, min(CHUNK, left))):
            left -= len(piece)
            yield piece
