"""Whether a stored blob is a sound artifact of its kind: read once, then remembered by its digest."""

import hashlib

from sqlalchemy import Connection, insert, select

from kuber.domain.artifact_checks import check_artifact
from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, Manifest
from kuber.errors import CorruptKnowledgeError
from kuber.services.db.database import Database
from kuber.services.vault.schema import blob_rows, verdict_rows
from kuber.services.vault.storage import CHUNK, BlobReader


def known_fault(database: Database, kind: str, digest: Digest) -> tuple[str | None] | None:
    """What was found wrong with this blob as an artifact of this kind; None when it was never looked at."""
    row = verdict_rows.c
    with database.read_snapshot() as connection:
        found = connection.execute(select(row.fault).where(row.digest == digest.hex, row.kind == kind)).one_or_none()
    return None if found is None else (found.fault,)


def examine(file: BlobReader, kind: str, artifact: Artifact) -> tuple[str | None, Manifest | None]:
    """Read a blob as an artifact of this kind; return its fault, None when it is valid, and the manifest of weights.

    Raises CorruptKnowledgeError when the bytes do not match the digest.
    """
    sha = hashlib.sha256()

    def read(length: int) -> bytes:
        piece = file.read(length)
        sha.update(piece)
        return piece

    fault, manifest = None, None
    try:
        manifest = check_artifact(kind, read, artifact.size)
    except ValueError as error:
        fault = str(error)
    while read(CHUNK):  # what follows a fault is a part of the digest too
        pass
    if sha.hexdigest() != artifact.digest.hex:
        raise CorruptKnowledgeError(f"Blob {artifact.digest} is damaged in the vault; put it there again.")
    return fault, manifest


def remember(database: Database, kind: str, digest: Digest, fault: str | None) -> None:
    """Keep the verdict for as long as the blob is kept."""

    def work(connection: Connection) -> None:
        row = verdict_rows.c
        known = select(row.digest).where(row.digest == digest.hex, row.kind == kind)
        stored = select(blob_rows.c.digest).where(blob_rows.c.digest == digest.hex)
        if connection.scalar(known) is None and connection.scalar(stored) is not None:
            connection.execute(insert(verdict_rows), {"digest": digest.hex, "kind": kind, "fault": fault})

    database.write(work)
