"""A service with limited connections, in a thread of the test process."""

import socket
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from kuber.domain.auth import Caller, Scope
from kuber.errors import NotAuthorizedError
from kuber.services.http.application import application
from kuber.services.http.auth import Authenticator
from kuber.services.http.connection_limits import ConnectionLimits, Connections
from kuber.services.http.json_log import RepeatedLines
from kuber.services.http.metrics import Metrics
from kuber.services.http.server import LimitedServer
from tests.fixtures.waiting import LIMIT, wait_until

SCOPES = {"secret": Scope.SERVICE, "operator": Scope.ADMIN}


class Sample(BaseModel):
    """Any JSON object."""

    model_config = {"extra": "allow"}


def sample_app():
    """An application where any token beginning with `e-` is an entity's."""

    async def authenticate(token, *_origin):
        if token not in SCOPES and not token.startswith("e-"):
            raise NotAuthorizedError("The token is not valid.")
        scope = SCOPES.get(token, Scope.ENTITY)
        entity = token if scope is Scope.ENTITY else None
        return Caller(scope=scope, expires_at=datetime.max.replace(tzinfo=UTC), entity=entity)

    guard = Authenticator(authenticate)
    app = application("registry", description="sample", metrics=Metrics("registry"))
    app.state.parsed = 0
    known, follower = guard.require(*Scope), guard.require(*Scope, kind="stream")

    @app.post("/v1/samples")
    async def sample(body: Sample, caller: Annotated[Caller, known]) -> int:
        app.state.parsed += 1
        return len(body.model_extra)

    @app.post("/v1/joins")
    async def join(body: Sample) -> int:
        return len(body.model_extra)

    @app.put("/v1/blobs/{name}")
    async def put(name: str, request: Request, caller: Annotated[Caller, known]) -> int:
        return sum([len(piece) async for piece in request.stream()])

    @app.get("/v1/stream")
    async def stream(caller: Annotated[Caller, follower]) -> StreamingResponse:
        async def pieces():
            yield b"begun"
            await app.state.until_end()

        return StreamingResponse(pieces())

    return app


class Raw:
    """A connection on which a test sends what it likes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)

    def send(self, data):
        """Send until the service closes the connection; return whether all was sent."""
        with suppress(OSError):
            self.socket.sendall(data)
            return True
        return False

    def receive(self):
        """Return the next bytes; b"" when the connection is closed."""
        try:
            return self.socket.recv(1 << 16)
        except ConnectionError:
            return b""

    def rest(self):
        """Return what comes until the connection is closed."""
        return b"".join(iter(self.receive, b""))

    def ask(self, head, body=b""):
        """Send a request and return the status of its response, 0 without one."""
        self.send(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
        return self.status()

    def status(self):
        """Return the status of the response that comes next."""
        first = self.receive()
        return int(first.split()[1]) if first else 0


@contextmanager
def serving_app(app, *, connections=50, per_address=0, limits=None):
    """Serve an application in a thread; yield its port and server."""
    limits = limits or ConnectionLimits()
    stop = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listening.getsockname()[1]
    server = LimitedServer(
        app, "registry", stop, None, "off", Connections(connections, per_address), limits, RepeatedLines()
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    wait_until(lambda: server.started and server.servers, "the service to start")
    try:
        yield port, server
    finally:
        stop.set()
        thread.join()
