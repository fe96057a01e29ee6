"""Serving an application as a process: its address, its JSON log and its clean stop."""

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI

from kuber import tracing
from kuber.domain.address import is_loopback, url_of
from kuber.errors import ServiceError, SettingsError

STOP_SECONDS = 5  # that requests under way get when the service is told to stop
# After which a thread hands the interpreter to one that waits for it. The event loop waits for it after each look at
# its sockets: at Python's 5 ms a question comes late whenever something is published.
SWITCH_SECONDS = 0.0005

log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A log record as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


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
) -> None:
    """Run a service until SIGTERM, SIGINT or, where asked, the end of standard input.

    With a certificate it speaks HTTPS; without one, an address that other machines reach is refused unless
    `plain_http` allows it.

    `lifespan` says whether the application has something to do at its start and its end.

    Prints its address on standard output when it accepts requests. Raises ServiceError when the address cannot be
    had, before `build` opens any data.
    """
    if certificate is None and not plain_http and not is_loopback(host):
        raise SettingsError(
            f"{host} can be reached by other machines: give --certificate and --private-key, or --plain-http to let "
            "everybody on the way read along."
        )
    tls = _tls(certificate, private_key)
    _log_to_stderr()
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = threading.Event()
    with _bound(service, host, port) as listener, _told_to(stop):
        if stop_with_stdin:
            threading.Thread(target=_await_end_of_input, args=(stop,), name="stdin", daemon=True).start()
        with tracing.traced(f"kuber-{service}"), build() as app:
            # What is there now lives to the end: the collector need not look at it again, nor the exit.
            gc.collect()
            gc.freeze()
            _Server(app, service, stop, tls, lifespan).run(sockets=[listener])
    log.info("stopped", extra={"told": {"service": service}})


class _Server(uvicorn.Server):
    def __init__(
        self,
        app: FastAPI,
        service: str,
        stop: threading.Event,
        tls: tuple[Path, Path] | None,
        lifespan: Literal["on", "off"],
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            lifespan=lifespan,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_SECONDS,
            ssl_certfile=tls and tls[0],
            ssl_keyfile=tls and tls[1],
        )
        super().__init__(config)
        self._ends: list[Callable[[], None]] = getattr(app.state, "ends", [])
        self._service = service
        self._stop = stop
        self._scheme = "https" if tls else "http"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        address = url_of(host, port, scheme=self._scheme)
        log.info("up", extra={"told": {"service": self._service, "address": address}})
        print(f"KUber {self._service} is up at {address}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for end in self._ends:
            end()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stop.is_set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `serve` holds the signals from before the data are opened until after they are closed


def _bound(service: str, host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=2048)
        # Inherited by accepted sockets: else an answer waits 40 ms for the delayed acknowledgement of its header.
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
    """The certificate and its key as the server wants them. SettingsError when they do not belong together."""
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise SettingsError("--certificate and --private-key are given together.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{certificate} and {private_key} cannot be used for TLS: {error}.") from None
    return certificate, private_key


@contextlib.contextmanager
def _told_to(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop` while this is open."""

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


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("kuber").setLevel(logging.INFO)
