"""Authentication of requests by bearer token, and the scopes that a route accepts."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from kuber.domain.auth import Caller, Scope
from kuber.errors import NotAuthorizedError, ServiceError
from kuber.services.http.admission import Admission, Kind

FOREVER = datetime.max.replace(tzinfo=UTC)  # when the secret of the hub expires


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Origin and purpose of a request, on which its authentication may depend."""

    address: str = "unknown"
    writes: bool = False  # whether it changes something


Authenticate = Callable[[str, Origin], Awaitable[Caller]]

_TOKEN = re.compile(r"[!-~]{1,200}")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticator:
    """Source of FastAPI dependencies that authenticate callers.

    `authenticate` returns the owner of a token or raises NotAuthorizedError.
    """

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    def require(self, *scopes: Scope, kind: Kind | None = None) -> Any:
        """Return the annotation of a parameter that receives the caller; refuse callers of other scopes.

        `kind` is that of requests that may take long.
        """
        return Security(_BearerToken(self._authenticate, scopes, kind))

    async def confirm(self, request: Request) -> None:
        """Raise HTTPException 401 unless the token of a request is still valid, after a body that took long."""
        await _authenticated(self._authenticate, request)


class _BearerToken(HTTPBearer):
    """FastAPI's security scheme, for OpenAPI, that also authenticates: one dependency instead of two."""

    def __init__(self, authenticate: Authenticate, scopes: tuple[Scope, ...], kind: Kind | None) -> None:
        super().__init__(
            scheme_name="HTTPBearer", description="The token of an entity, the operator or the other service."
        )
        self._authenticate = authenticate
        self._scopes = scopes
        self._kind = kind

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None:  # otherwise the route has called this before it read the body
            caller = await _authenticated(self._authenticate, request)
            if (link := request.scope.get("kuber.connection")) is not None:
                connections, connection = link
                connections.authenticated(connection, caller)
            admission: Admission = request.app.state.admission
            admission.enter(request.scope, caller, self._kind)
            request.state.caller = caller
        if caller.scope not in self._scopes:
            raise NotAuthorizedError(f"A token of scope {caller.scope} does not permit this request.")
        return caller


async def _authenticated(authenticate: Authenticate, request: Request) -> Caller:
    """Return the owner of a request's token. HTTPException 401 when it has none, or none that is valid."""
    token = bearer_token(request.headers.get("authorization", ""))
    if token is None:
        raise _unauthenticated("The request carries no token; send it as Authorization: Bearer TOKEN.")
    address = request.client.host if request.client is not None else "unknown"
    try:
        return await authenticate(token, Origin(address=address, writes=request.method not in _READS))
    except NotAuthorizedError as error:
        raise _unauthenticated(error.message) from None


def bearer_token(header: str) -> str | None:
    """Return the token in an Authorization header, None when there is none."""
    kind, _, token = header.partition(" ")
    token = token.strip()
    return token if kind.lower() == "bearer" and _TOKEN.fullmatch(token) else None


def check_acts_for(caller: Caller, entity: str) -> None:
    """Raise NotAuthorizedError unless the caller is this entity."""
    if caller.entity != entity:
        raise NotAuthorizedError(
            f"The token does not belong to entity {entity[:100]!r}; an entity acts only for itself."
        )


def same_secret(given: str, secret: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(given.encode(), secret.encode())


def secret_hash(secret: str) -> str:
    """Return the form in which a secret is stored: 256 random bits need no slower hash than SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hub_secret(path: Path) -> str:
    """Return the secret that registry and vault share. The first to start creates the file, for its owner only.

    Raises ServiceError when the file cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32))
            try:
                os.link(draft, path)  # fails when the other service was faster
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"The secret file {path} cannot be used: {error}.") from None
    if len(secret) < 32 or not _TOKEN.fullmatch(secret):
        raise ServiceError(
            f"{path} holds no secret: 32 to 200 characters without blanks. Restore the file, or remove it and "
            "restart registry and vault."
        )
    return secret


def _unauthenticated(message: str) -> HTTPException:
    return HTTPException(401, message, {"WWW-Authenticate": "Bearer"})
