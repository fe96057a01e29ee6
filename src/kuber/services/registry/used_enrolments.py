"""Used requests to join, which are remembered while they could be sent again."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select

from kuber.errors import NotAuthorizedError, ServiceUnavailableError
from kuber.services.registry.hub_identity import LIFETIME
from kuber.services.registry.schema import used_enrolments

SKEW = timedelta(minutes=10)  # by which an entity's clock may differ
REMEMBERED = 2 * SKEW + LIFETIME  # after which a request is too old to be sent again
MAX_ENROLMENTS = 200  # of one entity in that time


def check_unused(connection: Connection, hash: str, now: datetime) -> None:
    """Raise NotAuthorizedError when a request to join is used, as far as it could be sent again."""
    connection.execute(delete(used_enrolments).where(used_enrolments.c.expires_at <= now))
    if connection.scalar(select(used_enrolments.c.hash).where(used_enrolments.c.hash == hash)) is not None:
        raise NotAuthorizedError("The request to join has been used; sign another one.")


def note_used(connection: Connection, hash: str, entity: str, now: datetime) -> None:
    """Note that a request to join is used. ServiceUnavailableError when the entity has used too many."""
    query = select(func.count(), func.min(used_enrolments.c.expires_at)).where(used_enrolments.c.entity == entity)
    count, first = connection.execute(query).one()
    if count >= MAX_ENROLMENTS:
        left = max(1, round((first - now).total_seconds()))
        raise ServiceUnavailableError(
            f"The entity has joined {count} times within {REMEMBERED // timedelta(minutes=1)} minutes, which is all "
            "that the registry admits; go on with the token that it has, or join later.",
            retry_after=left,
        )
    row = {"hash": hash, "entity": entity, "expires_at": now + REMEMBERED}
    connection.execute(insert(used_enrolments), row)
