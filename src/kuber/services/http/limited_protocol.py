"""HTTP/1.1 as uvicorn speaks it, with limits on heads, on slow callers, and on requests sent ahead."""

import fcntl
import struct
import termios
from collections.abc import Iterable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from kuber.errors import KUberError, RequestRejectedError, ServiceUnavailableError
from kuber.services.http.connection_limits import Connection, ConnectionLimits, Connections
from kuber.wire import PROTOCOL, PROTOCOL_HEADER
from kuber.wire.problem import problem_from

SENT_AHEAD = 8  # requests that may wait for the response to an earlier one
UNREAD_BYTES = 64 << 20  # of a body that nobody reads
OVERHEAD_BYTES = 64 << 10  # of chunk sizes, extensions and trailers, beyond the bytes of the body itself
UNSENT_BYTES = 512 << 20  # of responses that callers have not read, of all
LINGER_SECONDS, LINGER_BYTES = 2.0, 4 << 20  # a refused caller still sends, and would miss the response
OVERFLOW_SECONDS = 5.0


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LimitedProtocol(HttpToolsProtocol):
    """A connection, with its limits. `check` is called every second or so."""

    def __init__(
        self,
        *,
        connections: Connections,
        connection: Connection,
        limits: ConnectionLimits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._connections = connections
        self._connection = connection
        self._limits = limits
        self._began = self.loop.time()  # the wait for the current head
        self._in_head = False
        self._in_body = False
        self._requests = 0
        self._head_bytes = 0  # of the current head, or of blank lines before it
        self._received = 0  # bytes of the current body, with what surrounds them
        self._body_bytes = 0
        self._ignores_input = False
        self._linger_until: float | None = None
        self._progress = _Progress(limits)

    def data_received(self, data: bytes) -> None:
        """Parse what was received; refuse it when a limit is exceeded."""
        if self._ignores_input or self.transport.is_closing():
            self._received += len(data)
            if self._received > LINGER_BYTES:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        requests, in_body = self._requests, self._in_body
        try:
            self._feed(data)
            if self._in_body:
                self._received += len(data) if in_body else 0
                self._check_body()
            elif self._requests == requests and not in_body:  # all of it belongs to one head
                if not self._head_bytes and not self._in_head:
                    self._began = self.loop.time()
                self._head_bytes += len(data)
                self._check_head()
        except _Refusal as refusal:
            self._refuse(refusal.status, str(refusal))
        except httptools.HttpParserUpgrade:
            self._on_upgrade()
        except httptools.HttpParserError:
            self._refuse(400, "The request is not valid HTTP/1.1.")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, _Refusal):
                raise error.__context__ from None
            raise

    def on_message_begin(self) -> None:
        """Begin to parse a request."""
        super().on_message_begin()
        self.scope["kuber.connection"] = self._connections, self._connection  # type: ignore[typeddict-unknown-key]
        self._in_head, self._in_body = True, False
        self._began = self.loop.time()
        self._head_bytes = 0
        self._requests += 1

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        super().on_url(url)
        if len(self.url) > self._limits.url_bytes:
            raise _Refusal(414, f"The URL has more than {self._limits.url_bytes} bytes; send a shorter one.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those after the body count as a part of the body and are ignored."""
        if self._in_body:
            return
        super().on_header(name, value)
        if len(self.headers) > self._limits.headers:
            raise _Refusal(431, f"The request has more than {self._limits.headers} headers; send fewer.")

    def on_headers_complete(self) -> None:
        """Begin to process the request, unless its head is too large or too many wait."""
        self._head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        self._check_head()
        if len(self.pipeline) >= SENT_AHEAD:
            raise _Refusal(429, "Too many requests were sent ahead of their responses.")
        self._in_head, self._in_body = False, True
        self._received = self._body_bytes = 0
        self._progress.restart()
        if not self._connection.known:
            self._connections.begun(self._connection)
        super().on_headers_complete()
        if self._connection.overflow and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; its response may still come."""
        super().on_message_complete()
        self._in_body = False
        self._began = self.loop.time()
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._progress.restart()
        self._began = self.loop.time()
        self._connections.responded(self._connection)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the protocol of WebSockets, which has no limits here."""
        self._connections.remove(self._connection)
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more."""
        self._connections.remove(self._connection)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Note that the caller has read what was sent."""
        self._progress.restart()
        super().resume_writing()

    def check(self, now: float, seconds: float) -> None:
        """Close the connection if its caller is too slow; `seconds` have passed since the last check."""
        if self._linger_until is not None:
            if now > self._linger_until:
                self.transport.abort()
        elif self.transport.get_write_buffer_size() and (self.flow.write_paused or not self._responding):
            if self._progress.too_slow_to_read(seconds, self._unsent()):
                self.transport.abort()
        elif self._in_body:
            waits = not self.flow.read_paused and not (self._responding and self.cycle.waiting_for_100_continue)
            if waits and self._progress.too_slow_to_send(seconds, self._received):
                self._refuse(408, "The body of the request came too slowly; send it again.")
        elif not self._responding and now - self._began > self._head_seconds:
            if self._in_head or self._head_bytes:
                self._refuse(408, "The head of the request came too slowly; send it again.")
            elif self.timeout_keep_alive_task is None:
                self.transport.abort()

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _head_seconds(self) -> float:
        return OVERFLOW_SECONDS if self._connection.overflow else self._limits.head_seconds

    def _check_head(self) -> None:
        if self._head_bytes > self._limits.head_bytes:
            message = f"The head of the request has more than {self._limits.head_bytes} bytes; send fewer headers."
            raise _Refusal(431, message)

    def _check_body(self) -> None:
        if self._received > OVERHEAD_BYTES + 2 * self._body_bytes:
            raise _Refusal(400, "The body of the request is in very small chunks; send larger ones.")
        if not self._responding and self._received > UNREAD_BYTES:
            raise _Refusal(413, "The body of the request is too large.")

    def _on_upgrade(self) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        elif self.cycle is not None:  # the request is served as any other, and is the last on this connection
            self.cycle.keep_alive = False
            self._ignores_input = True

    def _refuse(self, status: int, message: str) -> None:
        """Respond with an error and close the connection."""
        if self.pipeline or (self._responding and self.cycle.response_started):  # another response is on its way
            self.transport.abort()
            return
        if self._responding:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        error = ServiceUnavailableError(message) if status in (408, 429) else RequestRejectedError(message)
        self._unset_keepalive_if_required()
        self._ignores_input = True
        self._received = 0
        self._linger_until = self.loop.time() + LINGER_SECONDS
        self.transport.write(refusal(error, status))
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
                self.flow.resume_reading()
            else:
                self.transport.close()
        except (OSError, RuntimeError):  # the caller is gone, or the transport closes already
            self.transport.abort()

    def _unsent(self) -> int:
        """Return the bytes of responses that the caller has not received: here, and in the system's buffer."""
        socket = self.transport.get_extra_info("socket")
        unsent = self.transport.get_write_buffer_size()
        if socket is None or socket.fileno() < 0:
            return unsent
        try:
            return unsent + int(struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
        except OSError:
            return unsent


def bound_unsent(protocols: Iterable[LimitedProtocol]) -> None:
    """Disconnect those with the most unsent bytes while all have more than UNSENT_BYTES: they do not read."""
    sizes = [(protocol.transport.get_write_buffer_size(), protocol) for protocol in protocols]
    unsent = sum(size for size, _ in sizes)
    if unsent > UNSENT_BYTES:
        for size, protocol in sorted(sizes, key=lambda entry: entry[0], reverse=True):
            protocol.transport.abort()
            unsent -= size
            if unsent <= UNSENT_BYTES:
                return


def refusal(error: KUberError, status: int) -> bytes:
    """Return a response with this error, after which the connection is closed."""
    body = problem_from(error, status)
    content = body.model_dump_json().encode()
    retry = "Retry-After: 1\r\n" if isinstance(error, ServiceUnavailableError) else ""
    head = (
        f"HTTP/1.1 {status} {body.title}\r\n{PROTOCOL_HEADER}: {PROTOCOL}\r\n{retry}"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


class _Progress:
    """Bytes moved while the service waited for the caller."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self.restart()

    def restart(self) -> None:
        self._seconds = 0.0
        self._bytes = 0
        self._last: int | None = None  # bytes received, or unsent, at the last check

    def too_slow_to_read(self, seconds: float, unsent: int) -> bool:
        last, self._last = self._last, unsent
        return last is not None and self._too_slow(seconds, last - unsent)

    def too_slow_to_send(self, seconds: float, received: int) -> bool:
        last, self._last = self._last, received
        return last is not None and self._too_slow(seconds, received - last)

    def _too_slow(self, seconds: float, moved: int) -> bool:
        self._seconds += seconds
        self._bytes += moved
        if self._seconds < self._limits.stall_seconds:
            return False
        slow = self._bytes < self._seconds * self._limits.bytes_per_second
        self._seconds, self._bytes = 0.0, 0
        return slow
