"""Verdicts on artifacts: a blob is checked once as an artifact of a kind, and the index keeps the result."""

import hashlib
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection, insert, select

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


def require_valid(store: "VaultStore", kind: str, artifact: Artifact) -> Manifest | None:
    """Return the manifest of weights, None for other kinds.

    Raises RequestRejectedError unless the blob is stored and is a valid artifact of this kind.
    """
    check_kind(kind)
    digest = artifact.digest
    verdict = _read_verdict(store.database, kind, digest)
    check_size(artifact, store.size(digest))
    manifest: Manifest | None = None
    if verdict is None:
        with store.open(digest) as blob:
            verdict, manifest = _examine(blob, kind, artifact)
        _write_verdict(store.database, kind, digest, verdict)
    elif verdict.fault is None and kind == WEIGHTS:
        try:
            manifest = read_file_manifest(partial(store.head, digest), size=artifact.size)
        except ValueError as error:
            verdict = Verdict(str(error))
    if verdict.fault is not None:
        raise invalid_artifact(digest, kind, verdict.fault)
    return manifest


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


def _read_verdict(database: Database, kind: str, digest: Digest) -> Verdict | None:
    """Return the verdict, None when the blob was not checked yet."""
    row = verdict_rows.c
    query = select(row.fault).where(row.digest == digest.hex, row.kind == kind)
    with database.read_snapshot() as connection:
        found = connection.execute(query).one_or_none()
    return None if found is None else Verdict(found.fault)


def _write_verdict(database: Database, kind: str, digest: Digest, verdict: Verdict) -> None:
    """Keep a verdict for as long as the blob is stored."""

    def work(connection: Connection) -> None:
        row = verdict_rows.c
        known = select(row.digest).where(row.digest == digest.hex, row.kind == kind)
        stored = select(blob_rows.c.digest).where(blob_rows.c.digest == digest.hex)
        if connection.scalar(known) is None and connection.scalar(stored) is not None:
            values = {"digest": digest.hex, "kind": kind, "fault": verdict.fault}
            connection.execute(insert(verdict_rows), values)

    database.write(work)
