"""Accepting connections within their limits: asyncio's own servers accept all, and log each that fails."""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import deque
from functools import partial
from typing import Protocol

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import _TrustedHosts

from kuber.domain.address import is_loopback, network_of
from kuber.errors import ServiceUnavailableError
from kuber.services.http.connection_limits import Connection, ConnectionLimits, Connections
from kuber.services.http.exhaustion import exhausted_resource
from kuber.services.http.limited_protocol import LINGER_SECONDS, LimitedProtocol, refusal

AT_ONCE = 16  # connections accepted before others are served; fewer than the reserved descriptors
PAUSE_SECONDS = 0.1  # when the system has no descriptor for another

log = logging.getLogger(__name__)


class MakeProtocol(Protocol):
    """Maker of the protocol of a connection."""

    def __call__(self, connection: Connection) -> LimitedProtocol:
        """Return the protocol."""


class Listener:
    """A socket whose connections are counted. It has the methods of `asyncio.Server` that uvicorn calls."""

    def __init__(
        self,
        listening: socket.socket,
        connections: Connections,
        limits: ConnectionLimits,
        config: Config,
        make_protocol: MakeProtocol,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = listening
        self._connections = connections
        self._limits = limits
        self._tls: ssl.SSLContext | None = config.ssl
        self._proxies = _TrustedHosts(config.forwarded_allow_ips)
        self._make_protocol = make_protocol
        self._openings = set[asyncio.Task[None]]()
        self._refused = deque[socket.socket]()  # the last ones, which may still be open
        self._closed = False
        self._refusal = b"" if self._tls else refusal(ServiceUnavailableError("There are too many connections."), 503)
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            for task in self._openings:
                task.cancel()
            for refused in self._refused:
                refused.close()

    async def wait_closed(self) -> None:
        """Return at once: what was accepted is closed by others."""

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connection can be accepted: %s", errno.errorcode.get(error.errno or 0, "unknown"))
                if exhausted_resource(error) is not None:
                    self._connections.close_earliest()
                    self._loop.remove_reader(self._socket.fileno())
                    self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._open(accepted, str(address[0]))

    def _open(self, accepted: socket.socket, address: str) -> None:
        accepted.setblocking(False)
        opening = _Opening(accepted)
        connection = self._connections.admit(self._counted(address), opening.close, opening.unread)
        if connection is None:
            log.warning("a connection is refused, there are too many", extra={"fields": {"address": address}})
            self._refuse(accepted)
            return
        if connection.overflow:
            log.warning("too many connections; new ones are refused")
        opening.protocol = self._make_protocol(connection)
        opening.task = self._loop.create_task(self._start(accepted, opening.protocol))
        self._openings.add(opening.task)
        opening.task.add_done_callback(partial(self._opened, accepted, connection))

    def _refuse(self, accepted: socket.socket) -> None:
        """Respond that there are too many connections; close when the caller had time to read that."""
        with contextlib.suppress(OSError):
            accepted.send(self._refusal)
            accepted.shutdown(socket.SHUT_WR)
        if len(self._refused) == AT_ONCE:
            self._refused.popleft().close()
        self._refused.append(accepted)
        self._loop.call_later(LINGER_SECONDS, accepted.close)

    async def _start(self, accepted: socket.socket, protocol: LimitedProtocol) -> None:
        timeout = self._limits.handshake_seconds if self._tls else None
        await self._loop.connect_accepted_socket(
            lambda: protocol, accepted, ssl=self._tls, ssl_handshake_timeout=timeout
        )

    def _opened(self, accepted: socket.socket, connection: Connection, task: asyncio.Task[None]) -> None:
        self._openings.discard(task)
        if task.cancelled() or task.exception() is not None:  # it is gone, speaks no TLS, or another has its place
            self._connections.remove(connection)
            accepted.close()

    def _counted(self, address: str) -> str | None:
        """Return the address under which connections count; None for a proxy or this machine."""
        return None if address in self._proxies or is_loopback(address) else network_of(address)


class _Opening:
    """A connection that is opened: what closes it changes on the way."""

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self.protocol: LimitedProtocol | None = None
        self.task: asyncio.Task[None] | None = None

    def close(self) -> None:
        if self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abort()
        elif self.task is not None:
            self.task.cancel()

    def unread(self) -> bool:
        """Return whether the system holds bytes that were not read yet."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False
