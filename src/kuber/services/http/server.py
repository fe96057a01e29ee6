"""Run an application as a process: address, JSON log and graceful stop."""

import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kuber import tracing
from kuber.domain.address import is_loopback, url_of
from kuber.errors import ServiceError, SettingsError
from kuber.services.http.admission import Admission
from kuber.services.http.connection_limits import (
    MOST_DESCRIPTORS,
    Connection,
    ConnectionLimits,
    Connections,
    allow_descriptors,
    connections_for,
)
from kuber.services.http.json_log import RepeatedLines, log_to_stderr
from kuber.services.http.limited_protocol import LimitedProtocol, bound_unsent
from kuber.services.http.listener import Listener

STOP_SECONDS = 5  # for requests in progress when the service stops
CHECK_SECONDS = 1.0  # between two looks at slow connections
# After which a thread hands the interpreter lock to a waiting thread. The event loop waits for that lock after each
# poll of its sockets: with Python's 5 ms every request is late while a record is being published.
SWITCH_SECONDS = 0.0005

log = logging.getLogger(__name__)


def serve(
    service: str,
    build: Callable[[], contextlib.AbstractContextManager[FastAPI]],
    *,
    host: str,
    port: int,
    certificate: Path | None = None,
    private_key: Path | None = None,
    plain_http: bool = False,
    stop_with_stdin: bool = False,
    lifespan: Literal["on", "off"] = "off",
    limits: ConnectionLimits | None = None,
    descriptors_each: int = 1,
) -> None:
    """Run a service until SIGTERM, SIGINT or, with `stop_with_stdin`, the end of standard input.

    It serves HTTPS with a certificate. Without one, an address that other machines can reach is refused unless
    `plain_http` allows it. `lifespan` says whether the application has startup and shutdown handlers.
    A connection needs up to `descriptors_each` file descriptors.

    Prints the address on standard output once it accepts requests. Raises SettingsError for an unusable certificate
    and ServiceError when the address is not available, both before `build` opens any data.
    """
    if certificate is None and not plain_http and not is_loopback(host):
        raise SettingsError(
            f"{host} can be reached by other machines: add --certificate and --private-key to encrypt, or "
            "--plain-http to serve unencrypted."
        )
    tls = _tls(certificate, private_key)
    repeated = log_to_stderr()
    limits = limits or ConnectionLimits()
    connections = Connections(
        min(limits.in_all or MOST_DESCRIPTORS, connections_for(allow_descriptors(), each=descriptors_each)),
        limits.per_address,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = threading.Event()
    with _bound(service, host, port) as listener, _stop_on_signals(stop):
        if stop_with_stdin:
            threading.Thread(target=_await_end_of_input, args=(stop,), name="stdin", daemon=True).start()
        with tracing.traced(f"kuber-{service}"), build() as app:
            # Objects that exist now live until the exit: garbage collection can skip them.
            gc.collect()
            gc.freeze()
            LimitedServer(app, service, stop, tls, lifespan, connections, limits, repeated).run(sockets=[listener])
    log.info("stopped", extra={"fields": {"service": service}})


class LimitedServer(uvicorn.Server):
    """uvicorn's server with limited connections, which stops when an event is set."""

    """uvicorn's server with limited connections, which stops when an event is set."""

    def __init__(
        self,
        app: FastAPI,
        service: str,
        stop: threading.Event,
        tls: tuple[Path, Path] | None,
        lifespan: Literal["on", "off"],
        connections: Connections,
        limits: ConnectionLimits,
        repeated: RepeatedLines,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            lifespan=lifespan,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=limits.idle_seconds,
            ws="none" if lifespan == "off" else "auto",  # only pages use WebSockets
            timeout_graceful_shutdown=STOP_SECONDS,
            ssl_certfile=tls and tls[0],
            ssl_keyfile=tls and tls[1],
        )
        super().__init__(config)
        self._on_stop: list[Callable[[], None]] = getattr(app.state, "on_stop", [])
        self._service = service
        self._stop = stop
        self._scheme = "https" if tls else "http"
        self._connections = connections
        self._limits = limits
        self._repeated = repeated
        self._checked = time.monotonic()
        admission: Admission | None = getattr(app.state, "admission", None)
        if admission is not None:
            admission.resize(connections.in_all)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        assert sockets is not None
        self.servers = [self._listener(listening) for listening in sockets]  # type: ignore[misc]
        host, port = sockets[0].getsockname()[:2]
        address = url_of(host, port, scheme=self._scheme)
        log.info("up", extra={"fields": {"service": self._service, "address": address}})
        print(f"KUber {self._service} is up at {address}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for callback in self._on_stop:
            callback()
        if self._scheme == "https":
            for connection in self.server_state.connections:
                # Closing an idle TLS connection would wait for its client, which does not read until it sends again.
                if isinstance(connection, HttpToolsProtocol) and (
                    connection.cycle is None or connection.cycle.response_complete
                ):
                    connection.transport.abort()
        await super().shutdown(sockets)

    def _listener(self, listening: socket.socket) -> Listener:
        def protocol(connection: Connection) -> LimitedProtocol:
            return LimitedProtocol(
                connections=self._connections,
                connection=connection,
                limits=self._limits,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        return Listener(listening, self._connections, self._limits, self.config, protocol)

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()  # the clock of the event loop
        if now - self._checked >= CHECK_SECONDS:
            protocols = [found for found in self.server_state.connections if isinstance(found, LimitedProtocol)]
            for protocol in protocols:
                try:
                    protocol.check(now, now - self._checked)
                except Exception:  # one connection must not end the service
                    log.exception("a connection cannot be checked")
                    protocol.transport.abort()
            bound_unsent(protocols)
            self._checked = now
            self._repeated.report()
        return await super().on_tick(counter) or self._stop.is_set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `serve` handles the signals, from before the data are opened until after they are closed


def _bound(service: str, host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=2048)
        # Accepted sockets inherit it: otherwise a response waits 40 ms for the delayed acknowledgement of its header.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        name_unknown = isinstance(error, socket.gaierror) or not error.errno
        reason = error.strerror if name_unknown else os.strerror(error.errno or 0)
        raise ServiceError(
            f"The {service} cannot listen on {host}:{port} ({reason}); "
            "stop what listens there or choose another address with --host and --port."
        ) from None


def _tls(certificate: Path | None, private_key: Path | None) -> tuple[Path, Path] | None:
    """Check and return the certificate and its key. SettingsError when they do not belong together."""
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise SettingsError("Give --certificate and --private-key together.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{certificate} and {private_key} cannot be used for TLS: {error}.") from None
    return certificate, private_key


@contextlib.contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGTERM and SIGINT while this is open."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await_end_of_input(stop: threading.Event) -> None:
    # Not sys.stdin: its lock, held by a daemon thread, aborts the interpreter at exit.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    stop.set()
