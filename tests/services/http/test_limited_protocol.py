"""Hostile and slow connections: each is refused in time, and others are served."""

import asyncio
import json

import pytest

from kuber.services.http.connection_limits import ConnectionLimits, Connections
from kuber.services.http.limited_protocol import UNSENT_BYTES, LimitedProtocol, bound_unsent
from tests.fixtures.coroutines import run_coroutine

from .servers import Raw, sample_app, serving_app

HEALTH = b"GET /healthz HTTP/1.1\nHost: x"
POST = b"POST /v1/samples HTTP/1.1\nHost: x\nContent-Type: application/json"
TOKEN = b"\nAuthorization: Bearer e-1"
CHUNKED = POST + TOKEN + b"\nTransfer-Encoding: chunked"
BLOCK = b"a" * (1 << 20)


@pytest.fixture(scope="module")
def service():
    """A service with room for 20 connections; yield its port and server."""
    with serving_app(sample_app(), connections=20) as running:
        yield running


@pytest.fixture
def raw(service):
    """A connection, after which the service still responds."""
    connection = Raw(service[0])
    yield connection
    connection.socket.close()
    assert Raw(service[0]).ask(HEALTH) == 200


def endless(connection, first, more):
    """Send `first`, then `more` until the service has enough; return its status."""
    connection.send(first.replace(b"\n", b"\r\n"))
    assert any(not connection.send(more) for _ in range(200)), "200 MiB were taken"
    return connection.status()


@pytest.mark.parametrize(
    ("first", "more", "status"),
    [
        (HEALTH + b"\n", b"x-a: aaaa\r\n" * 100_000, 431),
        (HEALTH + b"\nx-a: ", BLOCK, 431),
        (b"GET /", BLOCK, 414),
        (b"", b"\r\n" * 500_000, 431),
        (CHUNKED + b"\n\n", b"1\r\n \r\n" * 100_000, 400),
        (CHUNKED + b"\n\n1;", BLOCK, 400),
        (CHUNKED + b"\n\n2\n{}\n0\n", b"x-t: aaaa\r\n" * 100_000, 400),
    ],
    ids=["headers", "header", "url", "blank lines", "chunks of a byte", "chunk extension", "trailers"],
)
def test_what_never_ends_is_refused(raw, first, more, status):
    assert endless(raw, first, more) == status


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (HEALTH.replace(b"1.1", b"1.0"), b"", 200),
        (HEALTH + b"\nx: " + b"a" * 30_000, b"", 200),
        (HEALTH + b"\nx: " + b"a" * 70_000, b"", 431),
        (HEALTH + b"\nx: y" * 150, b"", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\nHost: x", b"", 414),
        (POST + b"\nContent-Length: 3\nContent-Length: 5", b"12345", 400),
        (POST + b"\nContent-Length: 3\nTransfer-Encoding: chunked", b"0\r\n\r\n", 400),
        (POST + b"\nTransfer-Encoding: xchunked", b"0\r\n\r\n", 400),
        (POST + b"\nContent-Length: -1", b"", 400),
        (POST + b"\nContent-Length: 99999999999999999999999", b"", 400),
        (HEALTH.replace(b"Host", b"Host "), b"", 400),
        (HEALTH + b"\nConnection: Upgrade\nUpgrade: websocket", b"", 200),
        (b"CONNECT a:80 HTTP/1.1\nHost: x", b"", 400),
        (CHUNKED, b"2\r\n{}\r\n0\r\nAuthorization: Bearer e-2\r\n\r\n", 200),
        (POST + b"\nExpect: 100-continue\nContent-Length: 5000000", b"", 401),
        (POST + TOKEN + b"\nExpect: 100-continue\nContent-Length: 99000000", b"", 413),
        (POST + TOKEN + b"\nExpect: 100-continue\nContent-Length: 2", b"", 100),
    ],
)
def test_unusual_requests_are_served_or_refused(raw, head, body, status):
    assert raw.ask(head, body) == status


def test_a_refusal_is_a_problem(raw):
    raw.send(b"GET /" + b"a" * 40_000)
    head, _, body = raw.rest().partition(b"\r\n\r\n")
    assert b"KUber-Protocol: 1" in head
    assert json.loads(body)["code"] == "request-rejected"


def test_some_requests_may_be_sent_ahead_of_their_responses_but_not_thousands(raw):
    raw.send(HEALTH.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert raw.status() == 200
    raw.send((HEALTH.replace(b"\n", b"\r\n") + b"\r\n\r\n") * 10_000)
    assert raw.rest().count(b"HTTP/1.1 200") < 20


def test_a_caller_without_a_token_is_refused_before_the_body(raw):
    assert raw.ask(POST + b"\nContent-Length: 5000000") == 401


class Transport:
    """Transport that keeps what is written."""

    def __init__(self):
        self.written, self.aborted, self.unsent, self.closed = b"", False, 0, False

    def write(self, data):
        self.written += data

    def abort(self):
        self.aborted = True

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.aborted or self.closed

    def can_write_eof(self):
        return False

    def get_write_buffer_size(self):
        return self.unsent

    def get_extra_info(self, name):
        return None

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


@pytest.fixture
def opened():
    """Open a protocol on a transport of the test, with the limits as they are; it and the time are passed."""
    import uvicorn
    from uvicorn.server import ServerState

    def run(scenario):
        async def running():
            connections = Connections(20, 0)
            protocol = LimitedProtocol(
                connections=connections,
                connection=connections.admit(None, lambda: None),
                limits=ConnectionLimits(),
                config=uvicorn.Config(sample_app(), log_config=None, ws="none", lifespan="off"),
                server_state=ServerState(),
                app_state={},
            )
            protocol.connection_made(Transport())
            await scenario(protocol, asyncio.get_running_loop().time())

        run_coroutine(running())

    return run


def lines(*text):
    return "".join(f"{line}\r\n" for line in text).encode()


async def seconds(protocol, now, number, data=b""):
    """Let seconds pass, in each of which this is received."""
    for second in range(1, number + 1):
        if data and not protocol.transport.is_closing():
            protocol.data_received(data)
            await asyncio.sleep(0)
        protocol.check(now + second, 1.0)
    return protocol.transport


def test_a_connection_without_a_request_is_closed(opened):
    async def scenario(protocol, now):
        assert not (await seconds(protocol, now, 19)).aborted
        assert (await seconds(protocol, now, 22)).aborted

    opened(scenario)


@pytest.mark.parametrize("data", [b"x: y\r\n", b"\r\n"])
def test_a_slow_head_is_refused(opened, data):
    async def scenario(protocol, now):
        protocol.data_received(b"" if data == b"\r\n" else lines("GET /healthz HTTP/1.1"))
        transport = await seconds(protocol, now, 22, data)
        assert transport.written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"Retry-After: 1" in transport.written

    opened(scenario)


def test_a_caller_who_is_gone_when_he_is_refused_is_no_error(opened):
    async def scenario(protocol, now):
        def fail():
            raise OSError(107, "Transport endpoint is not connected")

        protocol.transport.can_write_eof, protocol.transport.write_eof = lambda: True, fail
        protocol.data_received(lines("GET /healthz HTTP/1.1"))
        assert (await seconds(protocol, now, 22)).aborted

    opened(scenario)


@pytest.mark.parametrize(("rate", "refused"), [(0, True), (500, True), (1100, False)])
def test_a_slow_body_is_refused(opened, rate, refused):
    async def scenario(protocol, now):
        head = lines("PUT /v1/blobs/a HTTP/1.1", "Authorization: Bearer e-1", "Content-Length: 10000000", "")
        protocol.data_received(head)
        await asyncio.sleep(0)
        transport = await seconds(protocol, now, 150, b"a" * rate)
        assert transport.written.startswith(b"HTTP/1.1 408") is refused
        assert transport.is_closing() is refused

    opened(scenario)


@pytest.mark.parametrize(("rate", "closed"), [(0, True), (500, True), (1100, False)])
def test_a_slow_reader_is_disconnected(opened, rate, closed):
    async def scenario(protocol, now):
        protocol.pause_writing()
        for second in range(150):
            protocol.transport.unsent = 1_000_000 - second * rate
            protocol.check(now + second, 1.0)
        assert protocol.transport.aborted is closed

    opened(scenario)


def test_those_who_do_not_read_are_disconnected_when_much_is_unsent(opened):
    async def scenario(protocol, now):
        protocol.transport.unsent = UNSENT_BYTES
        bound_unsent([protocol])
        assert not protocol.transport.aborted
        protocol.transport.unsent = UNSENT_BYTES + 1
        bound_unsent([protocol])
        assert protocol.transport.aborted

    opened(scenario)
