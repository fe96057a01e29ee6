"""Reading what a registry tells as server-sent events, and coming back where the reading was cut off."""

from collections.abc import Callable, Iterator

import httpx

from kuber.client.http import HttpService
from kuber.domain.auth import AuditEntry
from kuber.errors import ServiceError
from kuber.wire import AuditBody

Take = Callable[[int, AuditEntry], None]
MAX_LINE = 1 << 20  # characters


class EventReader:
    """Reads the events of a registry from the first one on; `last` is the number of the one read last.

    The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html, one line of data an event.
    """

    def __init__(self, registry: HttpService, take: Take, *, on_open: Callable[[], None] = lambda: None) -> None:
        """`take` is called with each event's number, which counts up, and the event; `on_open` at each answer."""
        self.last = 0
        self._registry = registry
        self._take = take
        self._on_open = on_open

    def read(self, *, follow: bool = False) -> None:
        """Take in what is there; with `follow` go on until the registry ends the connection, as one that stops does.

        Raises ServiceUnavailableError when it was cut, or none was to be had for as long as the registry's client has
        patience: calling it again goes on with the next event. ServiceError when what was read is no event.
        """
        self._registry.ask(
            "GET",
            "/v1/events",
            params={"follow": str(follow).lower()},
            headers=lambda: {"Last-Event-ID": str(self.last)},
            take=self._read,
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
            return  # a registry that tells again what is known
        entry = self._registry.parse(AuditBody.read, data.encode()).value()
        self._take(number, entry)
        self.last = number


def _lines(response: httpx.Response) -> Iterator[str]:
    """The lines of a stream, without their ends. ServiceError for one that never ends."""
    left = ""
    for piece in response.iter_text():
        *lines, left = (left + piece).split("\n")
        if len(left) > MAX_LINE:
            raise ServiceError("The registry tells an event that is longer than any may be.")
        yield from (line.removesuffix("\r") for line in lines)
