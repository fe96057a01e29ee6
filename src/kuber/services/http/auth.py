"""Who may call a route: the token of the request, and the scopes that the route is open to."""

import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from kuber.domain.auth import Caller, Scope
from kuber.errors import NotAuthorizedError, ServiceError

FOREVER = datetime.max.replace(tzinfo=UTC)  # the end of a service's own right

Authenticate = Callable[[str], Awaitable[Caller]]

_TOKEN = re.compile(r"[!-~]{1,200}")


class Authenticator:
    """Tells who calls. `authenticate` finds the owner of a token, or raises NotAuthorizedError."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    def admits(self, *scopes: Scope) -> Any:
        """What marks a parameter as the caller, of one of these scopes; any other is refused."""
        return Security(_Admission(self._authenticate, scopes))


class _Admission(HTTPBearer):
    """A scheme of FastAPI's, for its documents, that finds the caller itself: one dependency in place of two."""

    def __init__(self, authenticate: Authenticate, scopes: tuple[Scope, ...]) -> None:
        super().__init__(
            scheme_name="HTTPBearer", description="The token of an entity, the operator or the other service."
        )
        self._authenticate = authenticate
        self._scopes = scopes

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not _TOKEN.fullmatch(token.strip()):
            raise _unknown("The request carries no token; send it as Authorization: Bearer TOKEN.")
        try:
            found = await self._authenticate(token.strip())
        except NotAuthorizedError as error:
            raise _unknown(error.message) from None
        if found.scope not in self._scopes:
            raise NotAuthorizedError(f"A token of scope {found.scope} is not enough for this.")
        return found


def check_acts_for(caller: Caller, entity: str) -> None:
    """NotAuthorizedError unless the caller is this entity."""
    if caller.entity != entity:
        raise NotAuthorizedError(f"The token is not that of entity {entity[:100]!r}; act only for yourself.")


def same_secret(given: str, secret: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), secret.encode())


def hub_secret(path: Path) -> str:
    """The secret that registry and vault know each other by; made by the first that starts, for its owner only.

    Raises ServiceError when the file cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
            try:
                os.link(mine, path)  # fails where the other service was faster
            except FileExistsError:
                pass
            finally:
                mine.unlink()
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"The secret file {path} cannot be used: {error}.") from None
    if len(secret) < 32:
        raise ServiceError(f"The secret in {path} is too short; remove the file, and restart registry and vault.")
    return secret


def _unknown(message: str) -> HTTPException:
    return HTTPException(401, message, {"WWW-Authenticate": "Bearer"})
