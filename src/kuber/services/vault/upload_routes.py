"""Routes of the vault for uploads in several requests."""

from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool

from kuber.domain.auth import Caller, Scope
from kuber.domain.blob import Upload
from kuber.domain.knowledge import Artifact
from kuber.services.http.auth import Authenticator
from kuber.services.vault.streaming import BINARY, pieces_of, too_large, write_pieces
from kuber.services.vault.uploads import Uploads
from kuber.wire.vault import AnnouncementBody, UploadBody

UploadId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]


def add_upload_routes(app: FastAPI, uploads: Uploads, auth: Authenticator, max_blob_bytes: int) -> None:
    """Add the routes that begin, inspect, continue and complete an upload."""
    senders = auth.require(Scope.ENTITY, Scope.SERVICE)

    @app.post(
        "/v1/uploads",
        operation_id="begin_upload",
        status_code=201,
        responses={200: {"model": UploadBody, "description": "The vault has the blob already."}},
    )
    def begin(body: AnnouncementBody, response: Response, caller: Annotated[Caller, senders]) -> UploadBody:
        """Announce a blob that is sent in pieces: 201, or 200 without an id when the vault has it already.

        With `direct`, a vault on a bucket names the URL to which the bytes are sent instead, before the upload is
        completed.
        """
        if body.size > max_blob_bytes:
            raise too_large(max_blob_bytes)
        upload = uploads.begin(body.value(), owner=caller.entity, direct=body.direct)
        response.status_code = 200 if upload.id is None else 201
        return UploadBody.of(upload)

    @app.head("/v1/uploads/{id}", operation_id="head_upload", response_class=Response)
    def offset(id: UploadId, caller: Annotated[Caller, senders]) -> Response:
        """Return the received bytes as Upload-Offset, and the announced ones as Upload-Length."""
        upload = uploads.status(id)
        return Response(headers={"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.size)})

    @app.post("/v1/uploads/{id}", operation_id="complete_upload", status_code=201)
    def complete(id: UploadId, caller: Annotated[Caller, senders]) -> UploadBody:
        """Store the blob that was sent to the upload's `direct` URL: 409 when nothing was, 422 for other bytes."""
        artifact, _ = uploads.complete_direct(id)
        return _completed(artifact)

    @app.patch(
        "/v1/uploads/{id}",
        operation_id="continue_upload",
        responses={201: {"model": UploadBody, "description": "The upload is complete and the blob is stored."}},
        openapi_extra={"requestBody": {"required": True, "content": BINARY}},
    )
    async def append(
        id: UploadId,
        request: Request,
        response: Response,
        caller: Annotated[Caller, auth.require(Scope.ENTITY, Scope.SERVICE, kind="transfer")],
        offset: Annotated[int, Header(alias="Upload-Offset", ge=0, lt=2**63, description="Bytes sent before.")],
    ) -> UploadBody:
        """Append the body: 200 while bytes are missing, 201 when the blob is stored, 409 at a wrong offset."""
        lease = await run_in_threadpool(uploads.begin_append, id, offset)
        await write_pieces(pieces_of(request), lease.write)
        await auth.confirm(request)
        stored = await run_in_threadpool(uploads.complete, lease)
        if stored is None:
            return UploadBody.of(uploads.status(id))
        response.status_code = 201
        return _completed(stored[0])


def _completed(artifact: Artifact) -> UploadBody:
    return UploadBody.of(Upload(id=None, digest=artifact.digest, size=artifact.size, offset=artifact.size))
