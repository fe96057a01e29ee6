"""Routes that authenticate their caller before a byte of the body is read, and bound what a body of JSON costs."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Request, Response
from fastapi._compat import ModelField
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from kuber.domain.address import network_of
from kuber.domain.auth import Caller, Scope
from kuber.services.http.admission import Admission, too_many, unavailable

MAX_UNKNOWN_BYTES = 64 << 10  # of JSON from a caller without a token, who wants to join
SMALL = 64 << 10  # bytes that are parsed at once, in the event loop
MAX_VALUES = 250_000  # of a body of JSON: the parser holds the interpreter's lock, 0.1 s for as many
VALUE_BYTES = 80  # memory of a parsed value

# One thread: a second large body waits for the first.
_parser = ThreadPoolExecutor(max_workers=1, thread_name_prefix="json")


class JsonRoute(APIRoute):
    """A route whose token is checked first; FastAPI would read and parse the body before."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handle = super().get_route_handler()
        guards = [dependant.call for dependant in self.dependant.dependencies]
        guard = next((found for found in guards if isinstance(found, HTTPBearer)), None)
        field = self.body_field
        if field is None:
            return handle

        async def handle_authenticated(request: Request) -> Response:
            caller: Caller | None = None if guard is None else await guard(request)  # type: ignore[assignment]
            body = _JsonRequest(request, caller)
            try:
                await body.prepare(field)
                return await handle(body)
            finally:
                body.release()

        return handle_authenticated


class _JsonRequest(Request):
    """A request whose body counts towards the memory of its caller."""

    def __init__(self, request: Request, caller: Caller | None) -> None:
        super().__init__(request.scope, request.receive, request._send)
        self._key = _key_of(request, caller)
        self._known = caller is not None
        self._admission: Admission = request.app.state.admission
        self._taken = 0
        self._content: bytes | None = None
        self._value: Any = None

    async def body(self) -> bytes:
        """Return the body. Raises HTTPException 413, 429 or 503."""
        if self._content is None:
            pieces = []
            received = 0
            async for piece in self.stream():
                received += len(piece)
                if not self._known and received > MAX_UNKNOWN_BYTES:
                    message = f"The service accepts at most {MAX_UNKNOWN_BYTES} bytes here; send less."
                    raise HTTPException(413, message, {"connection": "close"})
                self._take(len(piece))
                pieces.append(piece)
            self._content = b"".join(pieces)
        return self._content

    async def prepare(self, field: ModelField) -> None:
        """Read the body; parse and validate it in a thread when it is large.

        Raises HTTPException 413, 429 or 503, and RequestValidationError.
        """
        content = await self.body()
        if len(content) <= SMALL or "json" not in self.headers.get("content-type", ""):
            return
        values = content.count(b",") + content.count(b"[") + content.count(b"{")
        if values > MAX_VALUES:
            raise HTTPException(413, f"The service accepts JSON of at most {MAX_VALUES} values; send less.")
        self._take(values * VALUE_BYTES)
        self._value = await asyncio.get_running_loop().run_in_executor(_parser, _validated, content, field)

    async def json(self) -> Any:
        """Return the body, parsed, and validated if it is large."""
        return json.loads(await self.body()) if self._value is None else self._value

    def release(self) -> None:
        """Give the memory back."""
        if self._taken and self._key is not None:
            self._admission.bodies.give(self._key, self._taken)
        self._taken = 0

    def _take(self, size: int) -> None:
        if self._key is None:
            return
        exhausted = self._admission.bodies.take(self._key, size)
        if exhausted == "each":
            raise too_many("Too much JSON of this caller is in progress; send more when it has ended.")
        if exhausted is not None:
            raise unavailable("Too many bytes of JSON are in progress; try again soon.")
        self._taken += size


def _validated(content: bytes, field: ModelField) -> Any:
    """Return the value of a body. Raises RequestValidationError."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        wrong = {"type": "json_invalid", "loc": ("body", 0), "msg": "JSON decode error", "input": {}}
        raise RequestValidationError([wrong]) from error
    value, errors = field.validate(parsed, {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors)
    return value


def _key_of(request: Request, caller: Caller | None) -> str | None:
    """Return under which name the body counts: the caller, or its address; None for the other service of the hub."""
    if caller is None:
        return f"address {network_of(request.client.host) if request.client else 'unknown'}"
    return None if caller.scope is Scope.SERVICE else caller.entity or caller.scope.value
