"""Authentication of the vault's callers by the registry, which knows the tokens; its answers are cached."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path

import httpx
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from kuber.domain.address import network_of
from kuber.domain.auth import Caller, Scope
from kuber.errors import KUberError, NotAuthorizedError, ServiceUnavailableError
from kuber.services.db.cache import BoundedCache
from kuber.services.http.auth import FOREVER, Origin, same_secret, secret_hash
from kuber.services.http.bulkhead import Bulkhead
from kuber.services.http.peer import peer_client
from kuber.transport.connection_errors import connection_error
from kuber.transport.intermediaries import intermediary_error
from kuber.wire import PROTOCOL_HEADER
from kuber.wire.problem import ProblemBody, error_from
from kuber.wire.registry import CallerBody, TokenBody

READ_SECONDS = 30  # for which a checked token may read without another check
WRITE_SECONDS = 5  # for which it may write
REFUSED_SECONDS = 60  # for which a refusal is remembered: a refused token never becomes valid
CACHE_SIZE = 10_000  # tokens that are valid, and as many that were refused
REFUSALS_PER_MINUTE = 60  # of different tokens from one address; then it may use only tokens that are known here
TIMEOUT_SECONDS = 10

_FORM = re.compile(r"[A-Za-z0-9_-]{43}")  # of the tokens that a registry issues
_BUSY = "The vault waits for its registry to check other tokens"


class VaultAccess:
    """Client of the registry at `url` that checks tokens; `secret` is the one that the services of a hub share.

    Used from one event loop. The tokens of some do not keep those of others from being checked: known tokens have
    threads of their own, an address has its share of the others, and is limited when it sends many wrong ones.
    """

    def __init__(
        self, url: str, secret: str, *, ca: Path | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = url.rstrip("/")
        self._secret = secret
        self._monotonic = monotonic
        self._known: BoundedCache[tuple[float, Caller]] = BoundedCache(CACHE_SIZE)  # by hash: when asked, owner
        self._refused: BoundedCache[tuple[float, str]] = BoundedCache(CACHE_SIZE)  # by hash: when asked, sentence
        self._asking: dict[str, asyncio.Task[Caller]] = {}  # by hash
        self._rate = RateLimitItemPerMinute(REFUSALS_PER_MINUTE)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._known_checks = Bulkhead(_BUSY, threads=8, queue=256, seconds=5.0)
        self._unknown_checks = Bulkhead(_BUSY, threads=8, queue=64, seconds=3.0)
        self._client = peer_client(url, "registry", secret, ca=ca, timeout=httpx.Timeout(TIMEOUT_SECONDS))

    async def caller(self, token: str, origin: Origin) -> Caller:
        """Return the owner of a token.

        Raises NotAuthorizedError for an unknown token, ServiceUnavailableError when the registry does not respond,
        HTTPException 429 for an address that has sent too many unknown tokens.
        """
        if same_secret(token, self._secret):
            return Caller(scope=Scope.SERVICE, expires_at=FOREVER)
        if not _FORM.fullmatch(token):
            raise NotAuthorizedError("This is no token of a registry; enrol to get one.")
        key, now = secret_hash(token), self._monotonic()
        known, refused = self._known.get(key), self._refused.get(key)
        if known is not None and now - known[0] < (WRITE_SECONDS if origin.writes else READ_SECONDS):
            return known[1]
        if refused is not None and now - refused[0] < REFUSED_SECONDS:
            raise NotAuthorizedError(refused[1])
        asking = self._asking.get(key)
        if asking is None:
            network = network_of(origin.address)
            if known is None:
                self._check_rate(network)
            asking = asyncio.create_task(self._check(token, key, None if known else network))
            self._asking[key] = asking
            asking.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(asking)

    def close(self) -> None:
        self._client.close()

    async def _check(self, token: str, key: str, network: str | None) -> Caller:
        """Ask the registry, and remember its answer. `network` is where an unknown token came from."""
        asked = self._monotonic()
        checks = self._known_checks if network is None else self._unknown_checks
        try:
            caller = await checks.run(partial(self._fetch_caller, token), by=network)
        except NotAuthorizedError as error:
            if network is not None:
                self._limiter.hit(self._rate, network)
            self._known.invalidate(key)
            self._refused.put(key, (asked, error.message), version=self._refused.version)
            raise
        self._known.put(key, (asked, caller), version=self._known.version)
        return caller

    def _forget(self, key: str, asked: asyncio.Task[Caller]) -> None:
        del self._asking[key]
        with contextlib.suppress(asyncio.CancelledError):
            asked.exception()  # those who wait for it get it; if nobody does any more, it is of no interest

    def _check_rate(self, network: str) -> None:
        if self._limiter.test(self._rate, network):
            return
        left = ceil(self._limiter.get_window_stats(self._rate, network).reset_time - time.time())
        message = (
            f"More than {self._rate.amount} wrong tokens came from your address within a minute; "
            "until the minute is over the vault checks no further tokens from there."
        )
        raise HTTPException(429, message, {"Retry-After": str(max(1, left))})

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
