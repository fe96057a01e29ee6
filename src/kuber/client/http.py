"""HTTP base of both clients: connection pool, retries, tokens, protocol header, and errors."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import random
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import stamina
from pydantic import ValidationError

from kuber.client.credentials import Credentials
from kuber.domain.address import is_host
from kuber.domain.whole_numbers import read_digits
from kuber.errors import (
    KnowledgeNotFoundError,
    KUberError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    SettingsError,
)
from kuber.transport.clients import http_client
from kuber.transport.connection_errors import connection_error
from kuber.transport.intermediaries import TOO_LARGE, UNAVAILABLE, intermediary_error, retry_after, too_large
from kuber.transport.proxies import proxy_for
from kuber.wire import KEY_HEADER, PROTOCOL, PROTOCOL_HEADER
from kuber.wire.base import Message, sentence
from kuber.wire.problem import ProblemBody, error_from
from kuber.wire.registry import HealthBody

CONNECT_SECONDS = 5
ANSWER_SECONDS = 60  # without a byte sent or received
MAX_ANSWER = 256 << 20  # bytes of JSON held in memory
WAIT_FIRST, WAIT_MOST = 0.1, 2.0  # seconds between two tries

_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_TOKEN = re.compile(r"[!-~]{1,200}")

V = TypeVar("V")
Trusted = Path | None  # a file of certificates to trust instead of the system's

stamina.instrumentation.set_on_retry_hooks([])  # retries are not logged; a final failure is raised


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """A response that has been read completely."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class HttpService:
    """Client of the service at `url`. Safe to use from several threads; a context manager that closes it.

    Idempotent requests are retried for up to `patience` seconds while the service does not answer or is unavailable.
    Raises SettingsError when `url` is not the address of a service, or the environment names a proxy or certificates
    that cannot be used.
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
        self._address = address
        self.service = service
        self._patience = patience
        self.credentials = credentials or Credentials()
        if service == "registry":
            self.credentials.use_at(self.url)
        self._proxy = proxy_for(address)
        self._client = http_client(
            address,
            proxy=self._proxy,
            ca=ca,
            base_url=self.url,
            headers={PROTOCOL_HEADER: str(PROTOCOL), "User-Agent": f"kuber/protocol-{PROTOCOL}"},
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
        """Close the connections."""
        self._client.close()

    def check(self, *, timeout: float | None = None) -> None:
        """Raise ServiceError unless the right service answers at the address."""
        health = self.health(timeout=timeout)
        if health.service != self.service:
            raise ServiceError(
                f"The service at {self.url} is a KUber {health.service}, not a {self.service}; check the address."
            )

    def health(self, *, timeout: float | None = None) -> HealthBody:
        """Return what the service says about itself."""
        return self.parse(HealthBody.read, self.request("GET", "/healthz", timeout=timeout, anonymous=True).data)

    def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | Callable[[], bytes] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        key: str | None = None,
        idempotent: bool = False,
        entity: str | None = None,
        read_body: Callable[[httpx.Response], bytes] | None = None,
        timeout: float | None = None,
        anonymous: bool = False,
    ) -> Response:
        """Send a request with the token of this entity and return the response; an error response is raised.

        A request is retried when it is GET, HEAD or PUT, has an idempotency `key`, or is said to be `idempotent`. A
        function as `content` or `headers` is called for each attempt. `read_body` reads the body of a successful
        response, by default all of it. `timeout` is how many seconds to wait for a byte. An `anonymous` request has
        no token.
        """
        retried = idempotent or key is not None or method in ("GET", "HEAD", "PUT")
        sent_params = {name: value for name, value in (params or {}).items() if value is not None}

        def build() -> httpx.Request:
            sent = {} if key is None else {KEY_HEADER: key}
            token = None if anonymous else self.credentials.token(entity)
            if token is not None and _TOKEN.fullmatch(token):  # other texts cannot be sent in a header
                sent["Authorization"] = f"Bearer {token}"
            if content is not None:
                sent["Content-Type"] = "application/json"
            return self._client.build_request(
                method,
                path,
                content=content() if callable(content) else content,
                params=sent_params,
                headers={**sent, **((headers() if callable(headers) else headers) or {})},
                timeout=httpx.Timeout(timeout or ANSWER_SECONDS, connect=CONNECT_SECONDS),
            )

        try:
            return self._send(build, retried, read_body or self._read)
        except _Unauthorized as refused:
            if anonymous or not self.credentials.renew():
                raise NotAuthorizedError(refused.message) from None
        try:
            return self._send(build, retried, read_body or self._read)
        except _Unauthorized as refused:
            raise NotAuthorizedError(refused.message) from None

    def _send(
        self, build: Callable[[], httpx.Request], retried: bool, read_body: Callable[[httpx.Response], bytes]
    ) -> Response:
        deadline = time.monotonic() + self._patience
        pauses = (min(WAIT_FIRST * 2**tries, WAIT_MOST) for tries in count())

        def pause(error: Exception) -> bool | float:
            """Return the seconds until the next try, the last of which is at the deadline; False for none."""
            left = deadline - time.monotonic()
            if not isinstance(error, ServiceUnavailableError) or left <= max(0.0, error.retry_after):
                return False
            return error.retry_after or min(left, next(pauses) + WAIT_FIRST * random())

        attempts = None if retried and self._patience > 0 else 1
        for attempt in stamina.retry_context(on=pause, attempts=attempts, timeout=None):
            with attempt, self._translated_errors(), closing(self._client.send(build(), stream=True)) as response:
                self._check_protocol(response)
                if response.is_error:
                    raise self._error(response)
                data = read_body(response)
                return Response(status=response.status_code, headers=response.headers, data=data)
        raise AssertionError("the last attempt returns or raises")

    def message(self, kind: type[Message], **fields: Any) -> bytes:
        """Return a message as JSON. RequestRejectedError when a field is not valid."""
        try:
            return kind(**fields).model_dump_json().encode()
        except ValidationError as error:
            raise RequestRejectedError(sentence(error)) from None

    def parse(self, read: Callable[[bytes], V], data: bytes, error: type[KUberError] = ServiceError) -> V:
        """Return what `read` makes of a response. Raises `error` when the response is malformed."""
        try:
            return read(data)
        except ValidationError as invalid:
            raise error(f"The {self.service} at {self.url} sent a malformed answer: {sentence(invalid)}") from None

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            command = f"kuber {self.service}"
            raise connection_error(error, self.service, self._address, command=command, proxy=self._proxy) from None
        except httpx.RequestError as error:
            raise ServiceError(f"The answer of the {self.service} at {self.url} cannot be read: {error}.") from None

    def _check_protocol(self, response: httpx.Response) -> None:
        version = response.headers.get(PROTOCOL_HEADER)
        if version == str(PROTOCOL):
            return
        if version is None:
            raise intermediary_error(response, self.service, self.url)
        newer = (read_digits(version) or 0) > PROTOCOL
        side = "this client" if newer else f"the {self.service}"
        raise ServiceError(
            f"The {self.service} at {self.url} has protocol {version[:20]!r} and this client protocol {PROTOCOL}: "
            f"upgrade {side}."
        )

    def _error(self, response: httpx.Response) -> Exception:
        try:
            error = error_from(ProblemBody.read(self._read(response)))
        except ValidationError:  # a HEAD response has no body, and a proxy may replace one
            error = self._error_by_status(response)
        if isinstance(error, ServiceUnavailableError):
            error.retry_after = retry_after(response)
        return _Unauthorized(error.message) if response.status_code == httpx.codes.UNAUTHORIZED else error

    def _error_by_status(self, response: httpx.Response) -> KUberError:
        status = response.status_code
        if status == httpx.codes.UNAUTHORIZED:
            return NotAuthorizedError(f"The {self.service} at {self.url} does not know the token; enrol again.")
        if status == httpx.codes.NOT_FOUND and response.request.method == "HEAD":
            return KnowledgeNotFoundError(f"The {self.service} at {self.url} has no such object.")
        if status == TOO_LARGE:
            return too_large(response, self.service)
        kind = ServiceUnavailableError if status in UNAVAILABLE else ServiceError
        return kind(f"The {self.service} at {self.url} failed with status {status}; see its log.")

    def _read(self, response: httpx.Response) -> bytes:
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > MAX_ANSWER:
                raise ServiceError(
                    f"The {self.service} at {self.url} sent more than {MAX_ANSWER} bytes; request smaller pages."
                )
        return bytes(data)


class _Unauthorized(Exception):
    """The service refused the token, or got none."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _parse(url: str, service: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    valid = (
        address.scheme in ("http", "https")
        and _HOST.fullmatch(address.raw_host)
        and is_host(address.raw_host.decode())
        and 1 <= (address.port or 80) <= 65535
        and not (address.query or address.fragment or address.userinfo)
    )
    if not valid:
        port = 5001 if service == "registry" else 5002
        raise SettingsError(f"{url!r} is not the address of a {service}; give one like http://127.0.0.1:{port}.")
    return address
