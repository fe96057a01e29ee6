"""Application factory of both services: problem details, protocol header, limits and request log."""

import functools
import json
import logging
import time
from math import ceil, inf
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import kuber
from kuber import tracing
from kuber.domain.address import network_of
from kuber.domain.whole_numbers import read_digits
from kuber.errors import (
    ConflictError,
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    InsufficientStorageError,
    KnowledgeNotFoundError,
    KUberError,
    NotAuthorizedError,
    RequestRejectedError,
    ServiceError,
    ServiceUnavailableError,
    TooLargeError,
)
from kuber.services.http.admission import Admission
from kuber.services.http.auth import bearer_token, same_secret
from kuber.services.http.exhaustion import exhausted_resource
from kuber.services.http.json_route import JsonRoute
from kuber.services.http.metrics import Metrics
from kuber.wire import PROTOCOL, PROTOCOL_HEADER
from kuber.wire.problem import ProblemBody, problem_from
from kuber.wire.registry import HealthBody

ServiceName = Literal["registry", "vault"]

STATUSES: dict[type[KUberError], int] = {
    KnowledgeNotFoundError: 404,
    TooLargeError: 413,
    RequestRejectedError: 400,
    ConflictError: 409,
    IncompatibleKnowledgeError: 422,
    CorruptKnowledgeError: 422,
    NotAuthorizedError: 403,
    ServiceUnavailableError: 503,
    InsufficientStorageError: 507,
}
MAX_JSON_BYTES = 8 << 20
REQUESTS_PER_MINUTE = 30_000  # from one address
COSTLY_RATE = RateLimitItemPerMinute(600)  # from one address, of paths that need no token and cost much
COSTLY_PATHS = frozenset({"/metrics", "/openapi.json"})
DRAIN_BYTES = 64 << 20  # read of a refused body at most
_DRAINED = {409, 413, 507}  # responses that may precede the end of the body
_EXPLAINED = {401, 408, 413, 416, 429, 503}  # raised by our own code, with a whole sentence
_KINDS: dict[int, type[KUberError]] = {
    401: NotAuthorizedError,
    408: ServiceUnavailableError,
    429: ServiceUnavailableError,
    503: ServiceUnavailableError,
}
PROBLEM_TYPE = "application/problem+json"

log = logging.getLogger(__name__)

_problem: dict[str, Any] = {
    "description": "The error, as problem details (RFC 9457).",
    "content": {PROBLEM_TYPE: {"schema": ProblemBody.model_json_schema()}},
}


def application(
    service: ServiceName,
    *,
    description: str,
    metrics: Metrics,
    secret: str | None = None,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    hub: str | None = None,
) -> FastAPI:
    """Create an application with only /healthz and /metrics, which answers every error with problem details.

    `requests_per_minute` limits the requests from one address; 0 sets no limit. The other service of the hub, which
    sends its `secret`, has no limit: its requests are those of many entities. `hub` is the id that /healthz shows.
    """
    app = FastAPI(
        title=f"KUber {service}",
        version=kuber.__version__,
        description=description,
        openapi_url=None,  # below, because FastAPI writes the document anew for each request
        docs_url=None,  # those pages load scripts from a CDN; the document itself is at /openapi.json
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": _problem, "5XX": _problem},
        exception_handlers={KUberError: _on_error, RequestValidationError: _on_invalid, HTTPException: _on_http},
    )
    app.state.admission = Admission(service)
    app.router.route_class = JsonRoute
    app.state.on_stop = []  # callbacks that end long polls and streams when the service stops
    app.add_middleware(
        ServiceMiddleware,
        service=service,
        metrics=metrics,
        secret=secret,
        admission=app.state.admission,
        requests_per_minute=requests_per_minute,
    )

    @app.get("/healthz", operation_id="health", response_model_exclude_none=True)
    async def health() -> HealthBody:
        """Return the name, protocol and version of the service, and the id of a registry's hub."""
        return HealthBody(status="ok", service=service, protocol=PROTOCOL, version=kuber.__version__, hub=hub)

    @app.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
    async def exposition() -> Response:
        """Return the metrics of the service for Prometheus."""
        return metrics.exposition()

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return Response(_document(app), media_type="application/json")

    tracing.instrument_app(app)

    return app


@functools.lru_cache(maxsize=2)
def _document(app: FastAPI) -> bytes:
    """Return the OpenAPI document of a complete application, as JSON."""
    return json.dumps(app.openapi()).encode()


def problem(error: KUberError, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """Return the error as problem details; the status defaults to that of its class."""
    if status is None:
        status = status_of(error)
    body = problem_from(error, status).model_dump_json()
    if isinstance(error, ServiceUnavailableError) and 0 < error.retry_after < inf:
        headers = {"Retry-After": str(ceil(error.retry_after)), **(headers or {})}
    return Response(body, status_code=status, media_type=PROBLEM_TYPE, headers=headers)


def status_of(error: KUberError) -> int:
    """Return the HTTP status of an error's class."""
    return next((STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES), 500)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, KUberError)
    response = problem(error)
    if response.status_code >= 500:
        log.error(error.message)
    return response


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(RequestRejectedError(_sentence(error)), 422)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"There is no route {request.url.path}; see /openapi.json for the routes."
    elif error.status_code == 405:
        message = (
            f"{request.url.path} does not support {request.method}; see /openapi.json for the methods it supports."
        )
    elif error.status_code in _EXPLAINED:
        message = error.detail
    else:
        message = f"The request is invalid: {error.detail}."
    headers = dict(error.headers) if error.headers else {}
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    kind = _KINDS.get(error.status_code, RequestRejectedError)
    return problem(kind(message), error.status_code, headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods of every route at this path; Starlette's own header names those of the first only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    at_path = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in route.methods or ()})


def _sentence(error: RequestValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "The body of the request is not JSON; send a JSON object."
    field = ".".join(str(part)[:100] for part in first["loc"])
    reason = str(first["msg"]).removeprefix("Value error, ")
    return f"The field {field} is refused: {reason[:1].lower()}{reason[1:]}."


class ServiceMiddleware:
    """ASGI middleware: protocol header, limits on JSON bodies and request rate, request log, unexpected errors."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: ServiceName,
        metrics: Metrics,
        secret: str | None,
        admission: Admission,
        requests_per_minute: int,
    ) -> None:
        self.app = app
        self._admission = admission
        self.service = service
        self._metrics = metrics
        self._secret = secret
        self._rate = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        self._metrics.count_start()
        status = 0
        sent = 0
        body = _LimitedBody(receive, None if _streamed(scope) else MAX_JSON_BYTES, self._too_large())

        async def send_response(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                if status in _DRAINED and (body.received or not _expects_continue(scope)):
                    await body.drain()
                version = (PROTOCOL_HEADER.lower().encode(), str(PROTOCOL).encode())
                message = {**message, "headers": [*message.get("headers", []), version]}
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, body, send_response)
            else:
                await self.app(scope, body, send_response)
        except ClientDisconnect:
            log.warning("the client disconnected", extra={"fields": {"service": self.service, "path": scope["path"]}})
        except Exception as error:  # the last resort: the reason goes to the log, not to the caller
            exhausted = exhausted_resource(error)
            if exhausted is not None:
                log.error("out of %s", exhausted)
            else:
                log.exception("unexpected error in %s %s", scope["method"], scope["path"])
            if status:
                raise  # the response has begun; the caller sees the connection break
            hidden = ServiceError(f"The {self.service} failed unexpectedly; see its log for the reason.")
            if exhausted is not None:
                hidden = ServiceUnavailableError(
                    f"The {self.service} is out of {exhausted}; try again soon.", retry_after=1
                )
            await problem(hidden)(scope, body, send_response)
        finally:
            self._admission.leave(scope)
            seconds = time.perf_counter() - began
            self._metrics.count_end(scope, status, seconds=seconds, received=body.received, sent=sent)
            milliseconds = round(seconds * 1000, 2)
            fields = {"service": self.service, "method": scope["method"], "path": scope["path"], "status": status}
            log.info("request", extra={"fields": {**fields, "bytes": sent, "milliseconds": milliseconds}})

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        version = headers.get(PROTOCOL_HEADER.lower().encode())
        if version is not None and version != str(PROTOCOL).encode():
            return problem(RequestRejectedError(_incompatible(self.service, version.decode("latin-1"))), 400)
        address = network_of((scope.get("client") or ("unknown",))[0])
        rate = COSTLY_RATE if self._rate is not None and scope["path"] in COSTLY_PATHS else self._rate
        if rate is not None and not self._is_inner(headers) and not self._limiter.hit(rate, address):
            retry_after = ceil(self._limiter.get_window_stats(rate, address).reset_time - time.time())
            message = (
                f"The {self.service} accepts {rate.amount} such requests per minute from one address; slow down."
            )
            return problem(ServiceUnavailableError(message), 429, {"Retry-After": str(max(1, retry_after))})
        length = read_digits(headers.get(b"content-length", b""))
        if length is not None and length > MAX_JSON_BYTES and not _streamed(scope):
            return problem(RequestRejectedError(self._too_large()), 413, {"connection": "close"})
        return None

    def _is_inner(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the other service of the hub sends this request."""
        token = bearer_token(headers.get(b"authorization", b"").decode("latin-1"))
        return self._secret is not None and token is not None and same_secret(token, self._secret)

    def _too_large(self) -> str:
        return f"The {self.service} accepts at most {MAX_JSON_BYTES} bytes of JSON; send less."


class _LimitedBody:
    """Receive channel that refuses a request body of more than `limit` bytes."""

    def __init__(self, receive: Receive, limit: int | None, refusal: str) -> None:
        self._receive = receive
        self._limit = limit
        self._refusal = refusal
        self.received = 0
        self._ended = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._limit is not None and self.received > self._limit:
            raise HTTPException(413, self._refusal, {"connection": "close"})
        return message

    async def drain(self) -> None:
        """Read the rest of a refused body, up to DRAIN_BYTES: a caller still sending would miss the response."""
        self._limit = None
        bound = self.received + DRAIN_BYTES
        while not self._ended and self.received < bound:
            await self()


def _expects_continue(scope: Scope) -> bool:
    """Whether the caller waits for a first response before it sends the body."""
    return any(name.lower() == b"expect" for name, _ in scope["headers"])


def _streamed(scope: Scope) -> bool:
    """Whether the body is a blob, which is never held in memory as a whole and has its own limit."""
    return bool(scope["path"].startswith(("/v1/blobs/", "/v1/uploads/")))


def _incompatible(service: ServiceName, version: str) -> str:
    newer = (read_digits(version) or 0) > PROTOCOL
    side = f"the {service}" if newer else "the client"
    return f"The client uses protocol {version[:20]!r} and this {service} protocol {PROTOCOL}: upgrade {side}."
