"""What both applications share: problem details, the protocol header and the request log."""

import logging
import time
from math import ceil
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
)
from kuber.services.http.metrics import Metrics
from kuber.wire import PROTOCOL, PROTOCOL_HEADER, HealthBody, ProblemBody, problem_from

ServiceName = Literal["registry", "vault"]

STATUSES: dict[type[KUberError], int] = {
    KnowledgeNotFoundError: 404,
    RequestRejectedError: 400,
    ConflictError: 409,
    IncompatibleKnowledgeError: 422,
    CorruptKnowledgeError: 422,
    NotAuthorizedError: 403,
    ServiceUnavailableError: 503,
    InsufficientStorageError: 507,
}
MAX_JSON_BYTES = 16 << 20
REQUESTS_PER_MINUTE = 30_000  # of one address
DRAIN_BYTES = 64 << 20  # of a body that is refused
_DRAINED = {409, 413, 507}  # answers that may come before the body has
_EXPLAINED = {401, 413, 416}  # raised here, with a sentence
PROBLEM_TYPE = "application/problem+json"

log = logging.getLogger(__name__)

_problem: dict[str, Any] = {
    "description": "What is wrong, as problem details (RFC 9457).",
    "content": {PROBLEM_TYPE: {"schema": ProblemBody.model_json_schema()}},
}


def application(
    service: ServiceName, *, description: str, metrics: Metrics, requests_per_minute: int = REQUESTS_PER_MINUTE
) -> FastAPI:
    """An application without routes but /healthz and /metrics, that answers every error as a problem.

    One address may send so many requests a minute; 0 sets no limit.
    """
    app = FastAPI(
        title=f"KUber {service}",
        version=kuber.__version__,
        description=description,
        docs_url=None,  # those pages load scripts from a content network; the document itself is at /openapi.json
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": _problem, "5XX": _problem},
        exception_handlers={
            KUberError: _on_error,
            RequestValidationError: _on_invalid,
            HTTPException: _on_http,
        },
    )
    app.state.ends = []  # called when the service is told to stop: what waits for others is to wait no longer
    app.add_middleware(ServiceMiddleware, service=service, metrics=metrics, requests_per_minute=requests_per_minute)

    @app.get("/healthz", operation_id="health")
    async def health() -> HealthBody:
        """Whether the service is up, and what it is."""
        return HealthBody(status="ok", service=service, protocol=PROTOCOL, version=kuber.__version__)

    @app.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
    async def told() -> Response:
        """What the service counts, for Prometheus."""
        return metrics.told()

    tracing.follow_requests(app)

    return app


def problem(error: KUberError, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """The error as problem details; the status is that of its class when not given."""
    if status is None:
        status = next((STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES), 500)
    body = problem_from(error, status).model_dump_json()
    return Response(body, status_code=status, media_type=PROBLEM_TYPE, headers=headers)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, KUberError)
    answer = problem(error)
    if answer.status_code >= 500:
        log.error(error.message)
    return answer


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(RequestRejectedError(_sentence(error)), 422)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"There is nothing at {request.url.path}; the routes are listed at /openapi.json."
    elif error.status_code == 405:
        message = f"{request.method} is not possible at {request.url.path}; see /openapi.json for what is."
    elif error.status_code in _EXPLAINED:
        message = error.detail
    else:
        message = f"The request cannot be understood: {error.detail}."
    headers = dict(error.headers) if error.headers else {}
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    kind = NotAuthorizedError if error.status_code == 401 else RequestRejectedError
    return problem(kind(message), error.status_code, headers)


def _allowed(request: Request) -> list[str]:
    """The methods of every route at this path; Starlette's own header names those of the first only."""
    found = [route for route in request.app.routes if isinstance(route, Route)]
    at_path = [route for route in found if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in route.methods or ()})


def _sentence(error: RequestValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "The body of the request is not JSON; send a JSON object."
    place = ".".join(str(part)[:100] for part in first["loc"])
    reason = str(first["msg"]).removeprefix("Value error, ")
    return f"The field {place} is refused: {reason[:1].lower()}{reason[1:]}."


class ServiceMiddleware:
    """ASGI middleware: protocol header, bounds on JSON bodies and on the rate, request log, no leak of what broke."""

    def __init__(self, app: ASGIApp, *, service: ServiceName, metrics: Metrics, requests_per_minute: int) -> None:
        self.app = app
        self.service = service
        self._metrics = metrics
        self._rate = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        self._metrics.begun()
        status = 0
        sent = 0
        body = _LimitedBody(receive, None if _streamed(scope) else MAX_JSON_BYTES, self._too_large())

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                if status in _DRAINED:
                    await body.drain()
                version = (PROTOCOL_HEADER.lower().encode(), str(PROTOCOL).encode())
                message = {**message, "headers": [*message.get("headers", []), version]}
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, body, answer)
            else:
                await self.app(scope, body, answer)
        except ClientDisconnect:
            log.warning("the client went away", extra={"told": {"service": self.service, "path": scope["path"]}})
        except Exception:  # the last line of defence: the reason goes to the log and not to the caller
            log.exception("unexpected error in %s %s", scope["method"], scope["path"])
            if status:
                raise  # the answer is under way; cutting the connection tells the caller
            mistake = ServiceError(f"The {self.service} made a mistake; its log says which.")
            await problem(mistake, 500)(scope, body, answer)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.ended(scope, status, seconds=seconds, received=body.taken, sent=sent)
            milliseconds = round(seconds * 1000, 2)
            told = {"service": self.service, "method": scope["method"], "path": scope["path"], "status": status}
            log.info("request", extra={"told": {**told, "bytes": sent, "milliseconds": milliseconds}})

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        spoken = headers.get(PROTOCOL_HEADER.lower().encode())
        if spoken is not None and spoken != str(PROTOCOL).encode():
            return problem(RequestRejectedError(_incompatible(self.service, spoken.decode("latin-1"))), 400)
        address = (scope.get("client") or ("unknown",))[0]
        if self._rate is not None and not self._limiter.hit(self._rate, address):
            again = ceil(self._limiter.get_window_stats(self._rate, address).reset_time - time.time())
            message = f"The {self.service} takes {self._rate.amount} requests a minute from one address; send fewer."
            return problem(ServiceUnavailableError(message), 429, {"Retry-After": str(max(1, again))})
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > MAX_JSON_BYTES and not _streamed(scope):
            return problem(RequestRejectedError(self._too_large()), 413, {"connection": "close"})
        return None

    def _too_large(self) -> str:
        return f"The {self.service} takes at most {MAX_JSON_BYTES} bytes of JSON; send less."


class _LimitedBody:
    """The body of a request on its way in, of which no more than `limit` bytes are passed on."""

    def __init__(self, receive: Receive, limit: int | None, refusal: str) -> None:
        self._receive = receive
        self._limit = limit
        self._refusal = refusal
        self.taken = 0
        self._ended = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.taken += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._limit is not None and self.taken > self._limit:
            raise HTTPException(413, self._refusal, {"connection": "close"})
        return message

    async def drain(self) -> None:
        """Take in a refused body, within reason: a caller still sending would lose the answer with the connection."""
        self._limit = None
        bound = self.taken + DRAIN_BYTES
        while not self._ended and self.taken < bound:
            await self()


def _streamed(scope: Scope) -> bool:
    """Whether the body is a blob, which is never held in memory and has a limit of its own."""
    return bool(scope["path"].startswith(("/v1/blobs/", "/v1/uploads/")))


def _incompatible(service: ServiceName, spoken: str) -> str:
    newer = spoken.isdigit() and int(spoken) > PROTOCOL
    side = f"the {service}" if newer else "the client"
    return f"The client speaks protocol {spoken[:20]!r} and this {service} protocol {PROTOCOL}: upgrade {side}."
