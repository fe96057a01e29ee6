"""Quota of an entity: bytes of the blobs it owns in a vault, and of those it has announced."""

from sqlalchemy import Connection, func, select

from kuber.domain.knowledge import Artifact
from kuber.errors import InsufficientStorageError
from kuber.services.vault.schema import blob_rows, upload_rows


def check_quota(connection: Connection, artifact: Artifact, *, owner: str | None, quota: int) -> None:
    """Raise InsufficientStorageError when this blob would exceed the owner's quota in bytes.

    Blobs without an owner are unlimited, and so is a quota of 0.
    """
    if owner is None or not quota:
        return
    digest = artifact.digest.hex
    announced = (
        select(upload_rows.c.digest, upload_rows.c.size)
        .where(upload_rows.c.owner == owner, upload_rows.c.digest != digest)
        .distinct()  # an announcement is repeated when its response was lost
        .subquery()
    )
    stored = select(func.sum(blob_rows.c.size)).where(blob_rows.c.owner == owner)
    used = (connection.scalar(stored) or 0) + (connection.scalar(select(func.sum(announced.c.size))) or 0)
    if used + artifact.size > quota:
        raise InsufficientStorageError(
            f"The vault keeps at most {quota} bytes per entity and has {used} of yours, so {artifact.size} more are "
            "too many; withdraw knowledge that is no longer needed."
        )
