"""How many bytes one entity may hold in a vault: what it brought first, and what it has announced."""

from sqlalchemy import Connection, func, select

from kuber.domain.knowledge import Artifact
from kuber.errors import InsufficientStorageError
from kuber.services.vault.schema import blob_rows, upload_rows


def check_room(connection: Connection, artifact: Artifact, *, owner: str | None, quota: int) -> None:
    """InsufficientStorageError when the owner may not bring this blob too; nobody's blobs, and quota 0, are free."""
    if owner is None or not quota:
        return
    digest = artifact.digest.hex
    announced = (
        select(upload_rows.c.digest, upload_rows.c.size)
        .where(upload_rows.c.owner == owner, upload_rows.c.digest != digest)
        .distinct()  # an announcement whose answer was lost is made again
        .subquery()
    )
    stored = select(func.sum(blob_rows.c.size)).where(blob_rows.c.owner == owner)
    held = (connection.scalar(stored) or 0) + (connection.scalar(select(func.sum(announced.c.size))) or 0)
    if held + artifact.size > quota:
        raise InsufficientStorageError(
            f"The vault keeps at most {quota} bytes of one entity and has {held} of yours, so {artifact.size} more "
            "are too many; withdraw what is not needed any more."
        )
