"""Verdicts on artifacts: a blob is checked once as an artifact of a kind, and the index keeps the result."""

import hashlib
import io
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, bindparam, insert, select

from kuber.domain.artifact_checks import check_artifact
from kuber.domain.digest import Digest
from kuber.domain.knowledge import WEIGHTS, Artifact, Manifest
from kuber.domain.publication_checks import check_kind, invalid_artifact
from kuber.domain.safetensors_header import read_file_manifest
from kuber.errors import CorruptKnowledgeError, RequestRejectedError
from kuber.services.db.database import Database
from kuber.services.vault.schema import blob_rows, verdict_rows
from kuber.services.vault.storage import CHUNK, BlobReader

if TYPE_CHECKING:
    from kuber.services.vault.store import VaultStore


class Verdict(NamedTuple):
    """Result of checking a blob as an artifact of a kind."""

    fault: str | None  # None when it is valid


class ValidArtifact(NamedTuple):
    """An artifact that was found valid."""

    manifest: Manifest | None  # of weights; None for other kinds
    new: bool  # whether its verdict is not in the index yet


# Built once: SQLAlchemy takes longer to build a statement than to run it.
_VERDICT = (
    select(blob_rows.c.size, verdict_rows.c.kind, verdict_rows.c.fault)
    .outerjoin(
        verdict_rows, (verdict_rows.c.digest == blob_rows.c.digest) & (verdict_rows.c.kind == bindparam("kind"))
    )
    .where(blob_rows.c.digest == bindparam("digest"))
)
_KEEP = insert(verdict_rows)


def require_valid(store: "VaultStore", kind: str, artifact: Artifact) -> ValidArtifact:
    """Check a blob as an artifact of this kind, or read the verdict of an earlier check.

    Raises RequestRejectedError unless the blob is stored and valid; of one that is not, the index keeps the verdict.
    """
    check_kind(kind)
    digest = artifact.digest
    verdict, size = _read_verdict(store.database, kind, digest)
    check_size(artifact, size)
    new = verdict is None
    manifest: Manifest | None = None
    if verdict is None:
        with store.storage.open(artifact) as blob:
            verdict, manifest = _examine(blob, kind, artifact)
    elif verdict.fault is None and kind == WEIGHTS:
        try:
            manifest = read_file_manifest(partial(store.head, digest), size=artifact.size)
        except ValueError as error:
            verdict = Verdict(str(error))
    if verdict.fault is not None:
        if new:
            row = {"digest": digest.hex, "kind": kind, "fault": verdict.fault}
            store.database.write(lambda connection: _keep_verdict(connection, row))
        raise invalid_artifact(digest, kind, verdict.fault)
    return ValidArtifact(manifest, new)


def examine_bytes(data: bytes, kind: str, artifact: Artifact) -> ValidArtifact:
    """Check the bytes of an artifact that is not stored yet. RequestRejectedError unless they are valid."""
    check_kind(kind)
    try:
        return ValidArtifact(check_artifact(kind, io.BytesIO(data).read, artifact.size), True)
    except ValueError as error:
        raise invalid_artifact(artifact.digest, kind, str(error)) from None


def check_size(artifact: Artifact, size: int | None) -> None:
    """Raise RequestRejectedError unless `size`, None for a missing blob, is that of the artifact."""
    if size is None:
        raise RequestRejectedError(f"Blob {artifact.digest} is not in the vault; put it there first.")
    if size != artifact.size:
        raise RequestRejectedError(f"Blob {artifact.digest} has {size} bytes, not the {artifact.size} declared.")


def _examine(blob: BlobReader, kind: str, artifact: Artifact) -> tuple[Verdict, Manifest | None]:
    """Read a blob to its end and check it as an artifact of this kind; also return the manifest of weights.

    Raises CorruptKnowledgeError when the bytes do not match the digest.
    """
    sha = hashlib.sha256()

    def read(length: int) -> bytes:
        piece = blob.read(length)
        sha.update(piece)
        return piece

    fault, manifest = None, None
    try:
        manifest = check_artifact(kind, read, artifact.size)
    except ValueError as error:
        fault = str(error)
    while read(CHUNK):  # bytes after a fault are part of the digest too
        pass
    if sha.hexdigest() != artifact.digest.hex:
        raise CorruptKnowledgeError(f"Blob {artifact.digest} is damaged in the vault; put it there again.")
    return Verdict(fault), manifest


def _keep_verdict(connection: Connection, row: dict[str, str]) -> None:
    """Keep a verdict for as long as the blob is stored."""
    found = connection.execute(_VERDICT, row).one_or_none()
    if found is not None and found.kind is None:
        connection.execute(_KEEP, row)


def _read_verdict(database: Database, kind: str, digest: Digest) -> tuple[Verdict | None, int | None]:
    """Return the verdict, None for a blob that was not checked, and the size of the blob, None when it is missing."""
    with database.read_snapshot() as connection:
        row = connection.execute(_VERDICT, {"digest": digest.hex, "kind": kind}).one_or_none()
    if row is None:
        return None, None
    return (None if row.kind is None else Verdict(row.fault)), row.size
