"""Bounds on what each caller, and all together, may have in progress: requests, streams, memory of bodies."""

from collections import defaultdict
from typing import Literal

from starlette.exceptions import HTTPException
from starlette.types import Scope as RequestScope

from kuber.domain.auth import Caller, Scope

REQUESTS_EACH = 128  # in progress at once, of one caller
STREAMS_EACH = 32  # event streams and long polls of one caller
STREAMS = 4096  # of all
TRANSFERS_EACH = 32  # of blobs, of one caller: each has two buffers of 1 MiB
TRANSFERS = 512  # of all
BODIES_EACH = 48 << 20  # bytes of JSON, and of what is parsed from it, of one caller
BODIES = 192 << 20  # of all
SMALL_BODIES = 1 << 20  # of one caller, whatever the others have

Kind = Literal["stream", "transfer"]  # of requests that may take long

_HELD = "kuber.admission"


class Share:
    """An amount that is bounded for each caller and in all. A caller may have `least` whatever the others have."""

    def __init__(self, *, each: int, total: int, least: int = 0) -> None:
        self.each = each
        self.total = total
        self.least = least
        self.used = 0
        self._by_key: defaultdict[str, int] = defaultdict(int)

    def take(self, key: str, amount: int = 1) -> str | None:
        """Add the amount. Return what is exhausted instead, "each" or "total"."""
        own = self._by_key.get(key, 0) + amount
        if own > self.each:
            return "each"
        if self.used + amount > (self.total if own > self.least else 2 * self.total):
            return "total"
        self._by_key[key] += amount
        self.used += amount
        return None

    def give(self, key: str, amount: int = 1) -> None:
        """Subtract an amount that was added."""
        self.used -= amount
        self._by_key[key] -= amount
        if not self._by_key[key]:
            del self._by_key[key]


class Admission:
    """Requests, streams and bodies that the callers of one service have in progress. Used from its event loop."""

    def __init__(self, service: str) -> None:
        self._service = service
        self.requests = Share(each=REQUESTS_EACH, total=1 << 30)  # connections bound them in all
        self.streams = Share(each=STREAMS_EACH, total=STREAMS)
        self.transfers = Share(each=TRANSFERS_EACH, total=TRANSFERS)
        self.bodies = Share(each=BODIES_EACH, total=BODIES, least=SMALL_BODIES)

    def resize(self, connections: int) -> None:
        """Fit the bounds to the number of connections that the service may have."""
        self.requests.each = min(REQUESTS_EACH, max(4, connections // 4))
        self.streams.total = min(STREAMS, max(2, connections // 2))
        self.transfers.total = min(TRANSFERS, max(2, connections // 2))
        self.transfers.each = min(TRANSFERS_EACH, max(2, self.transfers.total // 4))
        self.streams.each = min(STREAMS_EACH, max(2, self.streams.total // 4))

    def enter(self, scope: RequestScope, caller: Caller, kind: Kind | None = None) -> None:
        """Count a request of this caller until `leave`.

        Raises HTTPException 429 when this caller has too many, 503 when all have. The other service of the hub has
        no bound.
        """
        held: list[tuple[Share, str]] = scope.setdefault(_HELD, [])
        if caller.scope is Scope.SERVICE or held:
            return
        key = caller.entity or caller.scope.value
        shares = [(self.requests, "requests")]
        if kind is not None:
            shares.append((self.streams if kind == "stream" else self.transfers, f"{kind}s"))
        for share, what in shares:
            exhausted = share.take(key)
            if exhausted == "each":
                raise too_many(f"The {self._service} accepts {share.each} {what} of a caller at a time; end some.")
            if exhausted is not None:
                raise unavailable(f"The {self._service} has {share.total} {what} in progress; try again soon.")
            held.append((share, key))

    def leave(self, scope: RequestScope) -> None:
        """End what `enter` counted for this request."""
        for share, key in scope.pop(_HELD, ()):
            share.give(key)


def too_many(message: str) -> HTTPException:
    """Return the error of a caller that has too much in progress."""
    return HTTPException(429, message, {"Retry-After": "1"})


def unavailable(message: str) -> HTTPException:
    """Return the error for any caller while all together have too much in progress."""
    return HTTPException(503, message, {"Retry-After": "1"})
