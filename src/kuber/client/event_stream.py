"""Read a registry's server-sent events, and resume after a lost connection."""

from collections.abc import Callable, Iterator

import httpx

from kuber.client.http import HttpService
from kuber.domain.auth import AuditEntry
from kuber.errors import ServiceError
from kuber.wire.registry import AuditBody

OnEvent = Callable[[int, AuditEntry], None]
MAX_LINE = 1 << 20  # characters


class EventReader:
    """Reads the events of a registry from the first on; `last` is the number of the last one read.

    Format: https://html.spec.whatwg.org/multipage/server-sent-events.html, with one line of data for each event.
    """

    def __init__(
        self, registry: HttpService, on_event: OnEvent, *, on_open: Callable[[], None] = lambda: None
    ) -> None:
        """`on_event` is called with each event and its increasing number, `on_open` at each connection."""
        self.last = 0
        self._registry = registry
        self._on_event = on_event
        self._on_open = on_open

    def read(self, *, follow: bool = False) -> None:
        """Read past events; with `follow` also new ones, until the registry stops and ends the connection.

        Raises ServiceUnavailableError when the connection was lost, or the registry was unavailable for the client's
        patience: the next call resumes with the next event. Raises ServiceError for a malformed event.
        """
        self._registry.request(
            "GET",
            "/v1/events",
            params={"follow": str(follow).lower()},
            headers=lambda: {"Last-Event-ID": str(self.last)},
            read_body=self._read,
        )

    def _read(self, response: httpx.Response) -> bytes:
        self._on_open()
        number: int | None = None
        data = ""
        for line in _lines(response):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line and data and number is not None:
                self._apply(number, data)
                number, data = None, ""
            elif name == "id" and value.isdecimal():
                number = int(value)
            elif name == "data":
                data = value
        return b""

    def _apply(self, number: int, data: str) -> None:
        if number <= self.last:
            return  # sent again
        entry = self._registry.parse(AuditBody.read, data.encode()).value()
        self._on_event(number, entry)
        self.last = number


def _lines(response: httpx.Response) -> Iterator[str]:
    """Yield the lines of a stream, without their ends. ServiceError for one that is too long."""
    left = ""
    for piece in response.iter_text():
        *lines, left = (left + piece).split("\n")
        if len(left) > MAX_LINE:
            raise ServiceError(f"The registry sent an event of over {MAX_LINE} characters; check the address.")
        yield from (line.removesuffix("\r") for line in lines)
