"""Authentication of the vault's callers by the registry, which knows the tokens; its answers are cached."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from kuber.domain.auth import Caller, Scope
from kuber.errors import KUberError, ServiceUnavailableError
from kuber.services.db.cache import BoundedCache
from kuber.services.http.auth import FOREVER, same_secret, secret_hash
from kuber.services.http.peer import peer_client
from kuber.transport.connection_errors import connection_error
from kuber.transport.intermediaries import intermediary_error
from kuber.wire import PROTOCOL_HEADER
from kuber.wire.problem import ProblemBody, error_from
from kuber.wire.registry import CallerBody, TokenBody

CACHE_SECONDS = 30
CACHE_SIZE = 10_000  # tokens
TIMEOUT_SECONDS = 10


class VaultAccess:
    """Client of the registry at `url` that checks tokens; `secret` is the one that the services of a hub share."""

    def __init__(
        self, url: str, secret: str, *, ca: Path | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = url.rstrip("/")
        self._secret = secret
        self._monotonic = monotonic
        self._cache: BoundedCache[tuple[float, Caller]] = BoundedCache(CACHE_SIZE)  # hash of token -> expiry, owner
        self._client = peer_client(url, "registry", secret, ca=ca, timeout=httpx.Timeout(TIMEOUT_SECONDS))

    async def caller(self, token: str) -> Caller:
        """Return the owner of a token.

        Raises NotAuthorizedError for an unknown token, ServiceUnavailableError when the registry does not respond.
        """
        if same_secret(token, self._secret):
            return Caller(scope=Scope.SERVICE, expires_at=FOREVER)
        key = secret_hash(token)
        cached = self._cache.get(key)
        if cached is not None and self._monotonic() < cached[0]:
            return cached[1]
        caller = await run_in_threadpool(self._fetch_caller, token)
        self._cache.put(key, (self._monotonic() + CACHE_SECONDS, caller), version=self._cache.version)
        return caller

    def close(self) -> None:
        self._client.close()

    def _fetch_caller(self, token: str) -> Caller:
        body = TokenBody(token=token).model_dump_json()
        try:
            response = self._client.post(
                "/v1/tokens/check", content=body, headers={"Content-Type": "application/json"}
            )
            if PROTOCOL_HEADER not in response.headers:
                raise _unavailable(intermediary_error(response, "registry", self.url))
            if response.status_code == httpx.codes.UNAUTHORIZED:  # it is the vault that the registry refuses
                raise ServiceUnavailableError(
                    f"The registry at {self.url} does not know this vault; give both the same --secret file."
                )
            if response.is_error:
                raise error_from(ProblemBody.read(response.content))
            return CallerBody.read(response.content).value()
        except httpx.TransportError as error:
            address = self._client.base_url
            raise connection_error(error, "vault's registry", address, command="kuber registry") from None
        except ValidationError:
            raise ServiceUnavailableError(
                f"The vault's registry at {self.url} sends what the vault cannot read; check --registry."
            ) from None


def _unavailable(error: KUberError) -> ServiceUnavailableError:
    """Return an error of the vault's own connection as what it is for a caller: a vault that cannot answer now."""
    return error if isinstance(error, ServiceUnavailableError) else ServiceUnavailableError(error.message)
