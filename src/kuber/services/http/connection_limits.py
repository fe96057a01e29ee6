"""Limits on connections, and the choice of the connection that is closed for a new one.

A connection is *known* while the request on it bears an accepted token. All others can be closed when there are too
many: first those that wait for a request and whose last one bore none, the earliest first; then those that wait and
whose last one did; then requests that have been in progress for PATIENCE seconds without an accepted token.
"""

import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from kuber.domain.auth import Caller, Scope
from kuber.errors import ServiceUnavailableError

PER_ADDRESS = 256
MOST_DESCRIPTORS = 65_536  # that a service asks the system for
RESERVED = 192  # descriptors for the database and its threads, the log, and the link between registry and vault
PATIENCE = 5.0  # seconds
FRESH_SECONDS = 0.1  # after which a caller has sent the first bytes of its request
UNREAD_SECONDS = 1.0  # that bytes which the service has not read yet protect a connection
LOOKED_AT = 64  # connections of a queue, until it is given up
OVERFLOW = 16  # connections beyond the limit, for the other service of the hub and for responses that refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """Limits on the connections of a service, and on the time that each may take.

    `in_all` 0 means as many as the descriptors of the process allow; `per_address` 0 means no limit.
    """

    in_all: int = 0
    per_address: int = PER_ADDRESS
    head_bytes: int = 64 << 10  # of a request: its line and headers
    url_bytes: int = 32 << 10
    headers: int = 100
    head_seconds: float = 20.0  # from the connection, or the first byte, to the end of the headers
    handshake_seconds: float = 10.0
    idle_seconds: int = 75  # between two requests
    stall_seconds: float = 60.0  # over which the rate of a body or response is averaged
    bytes_per_second: float = 1024.0  # at least, while the service waits for the caller


def allow_descriptors() -> int:
    """Raise this process's limit of open files as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        return highest
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def connections_for(descriptors: int, *, each: int) -> int:
    """Return how many connections this many descriptors allow, when each may need `each` of them."""
    return max(4, (descriptors - min(RESERVED, descriptors // 2)) // each)


class Connection:
    """A connection as its limits see it."""

    __slots__ = ("began", "close", "groups", "known", "overflow", "unread")

    def __init__(
        self,
        close: Callable[[], None],
        unread: Callable[[], bool],
        groups: "tuple[_Group, ...]",
        *,
        began: float,
        overflow: bool,
    ) -> None:
        self.close = close
        self.unread = unread  # whether bytes of it wait to be read
        self.groups = groups  # in which it counts
        self.known = False
        self.began = began  # when its request did, or the wait for it
        self.overflow = overflow  # beyond the limit: only the other service of the hub is served


class _Group:
    """Connections that share a limit, in the order in which they may be closed."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self.size = 0
        self._unknown: OrderedDict[Connection, None] = OrderedDict()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()  # known before, without a request now
        self._begun: OrderedDict[Connection, None] = OrderedDict()  # with a request whose caller is not known yet

    def add(self, connection: Connection) -> None:
        self.size += 1
        self._unknown[connection] = None

    def remove(self, connection: Connection) -> None:
        self.size -= 1
        self.hold(connection)

    def hold(self, connection: Connection) -> None:
        """Do not close this connection for another."""
        for queue in (self._unknown, self._waiting, self._begun):
            queue.pop(connection, None)

    def release(self, connection: Connection, *, known: bool) -> None:
        """Let this connection be closed for another."""
        self.hold(connection)
        (self._waiting if known else self._unknown)[connection] = None

    def begin(self, connection: Connection) -> None:
        """Let this connection be closed for another after a while."""
        self.hold(connection)
        self._begun[connection] = None

    def first(self, now: float) -> Connection | None:
        for queue in (self._unknown, self._waiting):
            for connection in islice(queue, LOOKED_AT):
                waited = now - connection.began
                if waited > UNREAD_SECONDS or (waited > FRESH_SECONDS and not connection.unread()):
                    return connection
        begun = next(iter(self._begun), None)
        return begun if begun is not None and now - begun.began > PATIENCE else None


class Connections:
    """All open connections of a service. Used from its event loop."""

    def __init__(self, in_all: int, per_address: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.in_all = in_all
        self._monotonic = monotonic
        self._per_address = per_address
        self._counted = _Group()
        self._overflow = _Group()
        self._by_address: dict[str, _Group] = {}

    def admit(
        self, address: str | None, close: Callable[[], None], unread: Callable[[], bool] = lambda: False
    ) -> Connection | None:
        """Return a new connection, for which another may be closed; None when there are too many.

        None as an address stands for any: of a proxy, behind which are many. `close` closes the connection,
        `unread` says whether bytes of it wait to be read.
        """
        counted = [self._counted]
        if address is not None and self._per_address:
            group = self._by_address.get(address) or _Group(address)
            if group.size >= self._per_address and not self._make_room(group):
                return None
            counted.append(group)
        overflow = self._counted.size >= self.in_all and not self._make_room(self._counted)
        if overflow:
            if self._overflow.size >= OVERFLOW and not self._make_room(self._overflow):
                return None
            counted = [self._overflow]
        connection = Connection(close, unread, tuple(counted), began=self._monotonic(), overflow=overflow)
        for group in counted:
            group.add(connection)
            if group.address is not None:
                self._by_address[group.address] = group
        return connection

    def begun(self, connection: Connection) -> None:
        """Note that a request has begun, whose caller is not known yet."""
        connection.began = self._monotonic()
        for group in connection.groups:
            group.begin(connection)

    def authenticated(self, connection: Connection, caller: Caller) -> None:
        """Keep the connection open: its request bears an accepted token. The other service of the hub has no limit.

        Raises ServiceUnavailableError when there are too many connections for this caller.
        """
        connection.known = True
        if caller.scope is Scope.SERVICE:
            self.remove(connection)
        elif connection.overflow:
            raise ServiceUnavailableError(f"All {self.in_all} connections are in use; try again soon.", retry_after=1)
        for group in connection.groups:
            group.hold(connection)

    def responded(self, connection: Connection) -> None:
        """Note that the connection waits for its next request."""
        connection.began = self._monotonic()
        for group in connection.groups:
            group.release(connection, known=connection.known)
        connection.known = False

    def remove(self, connection: Connection) -> None:
        """Count the connection no more. Idempotent."""
        for group in connection.groups:
            group.remove(connection)
            if group.address is not None and not group.size:
                self._by_address.pop(group.address, None)
        connection.groups = ()

    def close_earliest(self) -> None:
        """Close a connection that may be closed, if there is one: the system has too few descriptors."""
        self._make_room(self._counted)

    def _make_room(self, group: _Group) -> bool:
        """Close a connection of the group that may be closed; return whether there was one."""
        connection = group.first(self._monotonic())
        if connection is None:
            return False
        self.remove(connection)
        connection.close()
        return True
