"""Shared by both clients: a connection pool, retries, the protocol header, and errors made from problem details."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import stamina
from pydantic import ValidationError

from kuber.client.credentials import Credentials
from kuber.domain.address import is_loopback
from kuber.errors import (
    KnowledgeNotFoundError,
    KUberError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    SettingsError,
)
from kuber.wire import (
    KEY_HEADER,
    PROTOCOL,
    PROTOCOL_HEADER,
    HealthBody,
    Message,
    ProblemBody,
    error_from,
    sentence,
)

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60  # without a byte sent or received
MAX_ANSWER = 256 << 20  # bytes of JSON held in memory
WAIT_FIRST, WAIT_MOST = 0.1, 2.0  # seconds between two tries

_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_TOKEN = re.compile(r"[!-~]{1,200}")

V = TypeVar("V")
Trusted = Path | None  # a file of certificates to trust instead of the system's

stamina.instrumentation.set_on_retry_hooks([])  # a retry is no news; what fails in the end is told in one sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """A response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class HttpService:
    """A service at `url`. Safe to use from several threads; closed by `close`, or by leaving a `with` block.

    A call that may be repeated is, for up to `patience` seconds, while the service gives no answer or says that it
    is unavailable. Raises SettingsError when `url` is no address of a service.
    """

    def __init__(
        self,
        url: str,
        *,
        service: Literal["registry", "vault"],
        patience: float,
        credentials: Credentials | None = None,
        ca: Trusted = None,
    ) -> None:
        address = _parse(url, service)
        self.url = str(address).rstrip("/")
        self.service = service
        self._patience = patience
        self.credentials = credentials or Credentials()
        self._client = httpx.Client(
            base_url=self.url,
            headers={PROTOCOL_HEADER: str(PROTOCOL), "User-Agent": f"kuber/protocol-{PROTOCOL}"},
            # Loading the certificates takes longer than a request.
            verify=_trusted(ca) if address.scheme == "https" else False,
            trust_env=not is_loopback(address.host),  # no proxy between two processes of one machine
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def check(self) -> None:
        """Return when the right service answers; ServiceError when something else does, or nothing."""
        answer = self.ask("GET", "/healthz")
        health = self.parse(HealthBody.read, answer.data)
        if health.service != self.service:
            raise ServiceError(
                f"What answers at {self.url} is a KUber {health.service}, not a {self.service}; check the address."
            )

    def ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        key: str | None = None,
        repeatable: bool = False,
        acting: str | None = None,
        take: Callable[[httpx.Response], bytes] | None = None,
        seconds: float | None = None,
    ) -> Response:
        """The service's answer to one request, made with the token of the entity `acting`; an error is raised.

        The request is tried again when it reads or names what it stores by digest, carries a `key`, or is said to be
        `repeatable`. `headers` that depend on what an earlier try brought are asked for at each. `take` reads the
        body of a success; without it all is read, as JSON. `seconds` are waited for a byte, when not
        the usual ones.
        """
        attempt = partial(
            self._ask,
            method,
            path,
            content,
            params,
            headers,
            key,
            repeatable=repeatable,
            acting=acting,
            take=take,
            seconds=seconds,
        )
        try:
            return attempt()
        except _Unknown as refused:
            if not self.credentials.renew():
                raise NotAuthorizedError(refused.message) from None
        try:
            return attempt()
        except _Unknown as refused:
            raise NotAuthorizedError(refused.message) from None

    def _ask(
        self,
        method: str,
        path: str,
        content: bytes | Iterator[bytes] | None,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None,
        key: str | None,
        *,
        repeatable: bool,
        acting: str | None,
        take: Callable[[httpx.Response], bytes] | None,
        seconds: float | None,
    ) -> Response:
        again = repeatable or key is not None or method in ("GET", "HEAD", "PUT")
        added = {KEY_HEADER: key} if key is not None else {}
        token = self.credentials.token(acting)
        if token is not None and _TOKEN.fullmatch(token):  # what a header cannot carry is no token
            added["Authorization"] = f"Bearer {token}"
        if content is not None:
            added["Content-Type"] = "application/json"
        asked = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in stamina.retry_context(
            on=ServiceUnavailableError,
            attempts=None if again and self._patience > 0 else 1,
            timeout=self._patience if self._patience > 0 else None,
            wait_initial=WAIT_FIRST,
            wait_max=WAIT_MOST,
            wait_jitter=WAIT_FIRST,
        ):
            with attempt, self._answering():
                sent = {**added, **((headers() if callable(headers) else headers) or {})}
                timeout = httpx.Timeout(seconds or ANSWER_SECONDS, connect=CONNECT_SECONDS)
                request = self._client.build_request(
                    method, path, content=content, params=asked, headers=sent, timeout=timeout
                )
                response = self._client.send(request, stream=True)
                try:
                    self._check_protocol(response)
                    if response.is_error:
                        raise self._error(response)
                    data = (take or self._read)(response)
                finally:
                    response.close()
                return Response(status=response.status_code, headers=response.headers, data=data)
        raise AssertionError("the last attempt returns or raises")

    def message(self, kind: type[Message], **fields: Any) -> bytes:
        """A message as JSON. RequestRejectedError when a field cannot be sent."""
        try:
            return kind(**fields).model_dump_json().encode()
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None

    def parse(self, read: Callable[[bytes], V], data: bytes, error: type[KUberError] = ServiceError) -> V:
        """What `read` makes of an answer; `error` when the answer is malformed."""
        try:
            return read(data)
        except ValidationError as wrong:
            raise error(f"The {self.service} at {self.url} sent what is not sound: {sentence(wrong)}") from None

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError:
            raise ServiceUnavailableError(
                f"No answer from the {self.service} at {self.url}: is it running? "
                f"Start it with `kuber {self.service}`."
            ) from None
        except httpx.RequestError as error:
            raise ServiceError(f"The answer of the {self.service} at {self.url} cannot be read: {error}.") from None

    def _check_protocol(self, response: httpx.Response) -> None:
        spoken = response.headers.get(PROTOCOL_HEADER)
        if spoken == str(PROTOCOL):
            return
        if spoken is None:
            if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # a proxy, while the service starts
                raise ServiceUnavailableError(f"The {self.service} at {self.url} is not available now; try again.")
            raise ServiceError(f"What answers at {self.url} is not a KUber {self.service}; check the address.")
        newer = spoken.isdecimal() and int(spoken) > PROTOCOL
        side = "this client" if newer else f"the {self.service}"
        raise ServiceError(
            f"The {self.service} at {self.url} speaks protocol {spoken[:20]!r} and this client protocol {PROTOCOL}: "
            f"upgrade {side}."
        )

    def _error(self, response: httpx.Response) -> Exception:
        try:
            error = error_from(ProblemBody.read(self._read(response)))
            return _Unknown(error.message) if response.status_code == httpx.codes.UNAUTHORIZED else error
        except ValidationError:
            pass  # a HEAD has no body, and something in between may answer in its own way
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return _Unknown(f"The {self.service} at {self.url} does not know the token; enrol again.")
        if response.status_code == httpx.codes.NOT_FOUND and response.request.method == "HEAD":
            return KnowledgeNotFoundError(f"The {self.service} at {self.url} has no such thing.")
        kind = ServiceError
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            kind = ServiceUnavailableError
        return kind(
            f"The {self.service} at {self.url} failed with status {response.status_code}; its log may say why."
        )

    def _read(self, response: httpx.Response) -> bytes:
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > MAX_ANSWER:
                raise ServiceError(
                    f"The {self.service} at {self.url} sent more than {MAX_ANSWER} bytes; ask for less."
                )
        return bytes(data)


class _Unknown(Exception):
    """The service does not know the token, or got none."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _trusted(ca: Trusted) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"The certificates in {ca} cannot be used: {error}.") from None


def _parse(url: str, service: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    sound = (
        address.scheme in ("http", "https")
        and _HOST.fullmatch(address.raw_host)
        and 1 <= (address.port or 80) <= 65535
        and not (address.query or address.fragment or address.userinfo)
    )
    if not sound:
        port = 5001 if service == "registry" else 5002
        raise SettingsError(f"{url!r} is not the address of a {service}; give one like http://127.0.0.1:{port}.")
    return address
