"""Which connections are admitted, and which is closed for a new one."""

from datetime import UTC, datetime

import pytest

from kuber.domain.auth import Caller, Scope
from kuber.errors import ServiceUnavailableError
from kuber.services.http.connection_limits import FRESH_SECONDS, OVERFLOW, PATIENCE, Connections, connections_for
from tests.fixtures.waiting import wait_until

from .servers import Raw, sample_app, serving_app

ENTITY = Caller(scope=Scope.ENTITY, entity="e", expires_at=datetime.max.replace(tzinfo=UTC))
PEER = Caller(scope=Scope.SERVICE, expires_at=datetime.max.replace(tzinfo=UTC))
HEALTH = b"GET /healthz HTTP/1.1\nHost: x"


class Book:
    """Connections, and the names of those that were closed for others."""

    def __init__(self, in_all, per_address=0):
        self.now = 0.0
        self.connections = Connections(in_all, per_address, monotonic=lambda: self.now)
        self.closed = []

    def open(self, name, address=None, caller=None):
        self.now += 2 * FRESH_SECONDS
        connection = self.connections.admit(address, lambda: self.closed.append(name))
        if caller is not None:
            self.connections.authenticated(connection, caller)
        return connection


def test_the_earliest_unknown_connection_is_closed_first_then_known_ones_that_wait():
    book = Book(3)
    waiting = book.open("waiting", caller=ENTITY)
    book.connections.responded(waiting)
    book.open("first")
    book.open("second")
    for name in ("a", "b", "c"):
        book.open(name, caller=ENTITY)
    assert book.closed == ["first", "second", "waiting"]


def test_requests_whose_caller_is_being_authenticated_have_some_seconds():
    book = Book(2)
    for name in ("slow", "slower"):
        book.connections.begun(book.open(name))
    assert book.open("extra").overflow
    assert book.closed == []
    book.now += PATIENCE + 1
    assert not book.open("new").overflow
    assert book.closed == ["slow"]


def test_there_are_few_connections_beyond_the_limit():
    book = Book(1)
    book.open("a", caller=ENTITY)
    for number in range(OVERFLOW):
        book.connections.begun(book.open(f"extra {number}"))
    assert book.open("more") is None


def test_requests_of_known_callers_are_never_closed():
    book = Book(2)
    for name in ("a", "b"):
        book.open(name, caller=ENTITY)
    extra = book.open("extra")
    assert extra.overflow
    with pytest.raises(ServiceUnavailableError) as caught:
        book.connections.authenticated(extra, ENTITY)
    assert caught.value.retry_after == 1
    assert book.closed == []


def test_the_other_service_has_no_limit():
    book = Book(1)
    book.open("a", caller=ENTITY)
    for number in range(2 * OVERFLOW):
        book.open(f"peer {number}", caller=PEER)
    assert book.closed == []


def test_an_address_has_its_own_limit():
    book = Book(10, per_address=2)
    book.open("idle", "1.2.3.4")
    book.open("a", "1.2.3.4", caller=ENTITY)
    book.open("b", "1.2.3.4", caller=ENTITY)
    assert book.closed == ["idle"]
    assert book.open("c", "1.2.3.4") is None
    assert book.open("d", "1.2.3.5") is not None


def test_a_closed_connection_counts_no_more():
    book = Book(1, per_address=1)
    for _ in range(5):
        connection = book.open("a", "1.2.3.4", caller=ENTITY)
        assert not connection.overflow
        book.connections.remove(connection)
        book.connections.remove(connection)
    assert not book.connections._by_address


@pytest.mark.parametrize(("descriptors", "number"), [(64, 32), (256, 128), (1024, 832), (65_536, 65_344)])
def test_descriptors_remain_for_files(descriptors, number):
    assert connections_for(descriptors, each=1) == number
    assert connections_for(descriptors, each=2) == number // 2


def test_a_service_serves_new_callers_whatever_number_of_connections_idles():
    with serving_app(sample_app(), connections=10) as (port, server):
        idle = [Raw(port) for _ in range(60)]
        # Those that were accepted a moment ago are not closed yet: a new caller may get 503 first.
        wait_until(lambda: Raw(port).ask(HEALTH) == 200, "a new caller to be served")
        assert [Raw(port).ask(HEALTH) for _ in range(5)] == [200] * 5
        assert len(server.server_state.connections) <= 10 + OVERFLOW
        assert b"" in [connection.receive() for connection in idle[:5]]


def test_bytes_that_were_not_read_yet_protect_a_connection():
    book = Book(1)
    sent = book.connections.admit(None, lambda: book.closed.append("sent"), lambda: True)
    assert book.open("second").overflow
    book.connections.remove(sent)
    book.open("third")
    assert not book.open("fourth").overflow
    assert book.closed == ["third"]
