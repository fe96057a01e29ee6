"""Whom a vault serves: it asks the registry about tokens, and remembers the answer for a while."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from kuber.domain.auth import Caller, Scope
from kuber.errors import ServiceUnavailableError, SettingsError
from kuber.services.http.auth import FOREVER, same_secret
from kuber.services.http.peer import peer_transport
from kuber.services.registry.access import digest
from kuber.wire import PROTOCOL, PROTOCOL_HEADER, CallerBody, ProblemBody, TokenBody, error_from

REMEMBER_SECONDS = 30
REMEMBERED = 10_000  # tokens
ANSWER_SECONDS = 10


class VaultAccess:
    """The vault's link to the registry at `url`; `secret` is what the two know each other by."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        ca: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise SettingsError(f"{url!r} is no address of a registry; give one like http://127.0.0.1:5001.")
        self._secret = secret
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, Caller]] = {}  # by hash of the token -> until when, whose
        headers = {PROTOCOL_HEADER: str(PROTOCOL), "Authorization": f"Bearer {secret}"}
        self._client = httpx.Client(
            base_url=self.url, headers=headers, timeout=ANSWER_SECONDS, transport=peer_transport(ca)
        )

    async def caller(self, token: str) -> Caller:
        """Whom the token belongs to. Raises NotAuthorizedError, or ServiceUnavailableError without an answer."""
        if same_secret(token, self._secret):
            return Caller(scope=Scope.SERVICE, expires_at=FOREVER)
        key = digest(token)
        until, known = self._known.get(key, (0.0, None))
        if known is not None and self._monotonic() < until:
            return known
        self._known.pop(key, None)
        known = await run_in_threadpool(self._ask, token)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = self._monotonic() + REMEMBER_SECONDS, known
        return known

    def close(self) -> None:
        self._client.close()

    def _ask(self, token: str) -> Caller:
        body = TokenBody(token=token).model_dump_json()
        try:
            answer = self._client.post("/v1/tokens/check", content=body, headers={"Content-Type": "application/json"})
            if answer.status_code == httpx.codes.UNAUTHORIZED:  # it is we whom the registry does not know
                raise ServiceUnavailableError(
                    f"The registry at {self.url} does not know this vault; give both the same --secret file."
                )
            if answer.is_error:
                raise error_from(ProblemBody.read(answer.content))
            return CallerBody.read(answer.content).value()
        except (httpx.TransportError, ValidationError):
            raise ServiceUnavailableError(
                f"The vault gets no answer from its registry at {self.url}; start that registry and try again."
            ) from None
