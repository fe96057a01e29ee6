"""Read a registry's server-sent events, and resume after a lost connection."""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

import httpx

from kuber.client.http import HttpService
from kuber.domain.auth import AuditEntry
from kuber.errors import ServiceError, ServiceUnavailableError
from kuber.wire.registry import MISSED, AuditBody, MissedBody

OnEvent = Callable[[int, AuditEntry], None]
MAX_LINE = 1 << 20  # characters

log = logging.getLogger("kuber")


class EventReader:
    """Reads the events of a registry from the first on; `last` is the number of the last one read.

    Format: https://html.spec.whatwg.org/multipage/server-sent-events.html, with one line of data for each event. An
    event that is too long or malformed is skipped, with one warning for each reader: others must not be missed.
    """

    def __init__(
        self,
        registry: HttpService,
        on_event: OnEvent,
        *,
        on_open: Callable[[], None] = lambda: None,
        on_restart: Callable[[], None] = lambda: None,
        on_missed: Callable[[datetime], None] = lambda until: None,
    ) -> None:
        """`on_event` is called with each event and its increasing number, `on_open` at each connection.

        `on_restart` is called when the hub has fewer events than were read, as it was restored from an older backup:
        all of them are read again. `on_missed` is called when events are no longer there because of their age, with
        the time of the last of them.
        """
        self.last = 0
        self.skipped = 0  # events
        self._registry = registry
        self._on_event = on_event
        self._on_open = on_open
        self._on_restart = on_restart
        self._on_missed = on_missed

    def read(self, *, follow: bool = False) -> None:
        """Read past events; with `follow` also new ones, until the registry stops and ends the connection.

        Raises ServiceUnavailableError when the connection was lost, or the registry was unavailable for the client's
        patience: the next call resumes with the next event.
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
        data: str | None = ""
        kind = ""
        for line in _lines(response):
            if line is None:
                data = None
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if kind == MISSED and data:
                    self._miss(data)
                elif data != "" and number is not None:
                    self._apply(number, data)
                elif number is not None:
                    self._restart(number)
                number, data, kind = None, "", ""
            elif name == "event":
                kind = value
            elif name == "id" and value.isascii() and value.isdecimal() and len(value) < 19:
                number = int(value)
            elif name == "data":
                data = value
        return b""

    def _apply(self, number: int, data: str | None) -> None:
        """Apply an event; `data` is None if it is too long."""
        if number <= self.last:
            return  # sent again
        self.last = number
        if data is None:
            self._skip(number, f"it has over {MAX_LINE} characters")
            return
        try:
            entry = self._registry.parse(AuditBody.read, data.encode()).value()
        except ServiceError as error:
            self._skip(number, f"it is malformed. {error.message}")
            return
        self._on_event(number, entry)

    def _miss(self, data: str) -> None:
        try:
            missed = self._registry.parse(MissedBody.read, data.encode())
        except ServiceError as error:
            log.warning("The registry does not say in a known form which events were removed: %s", error.message)
            return
        self._on_missed(missed.until)

    def _skip(self, number: int, reason: str) -> None:
        self.skipped += 1
        if self.skipped == 1:
            log.warning(
                "Event %d of the registry at %s is skipped, as others like it will be: %s",
                number,
                self._registry.url,
                f"{reason.rstrip('.')}.",
            )

    def _restart(self, number: int) -> None:
        """Begin with the first event again if the hub's last one, `number`, has been read before."""
        if number < self.last:
            self.last = 0
            self._on_restart()
            raise ServiceUnavailableError("The hub was restored from an older backup; its events are read again.")


def _lines(response: httpx.Response) -> Iterator[str | None]:
    """Yield the lines of a stream, without their ends; None for one that is too long, which is not kept in memory."""
    parts: list[str] = []  # of the line that has not ended
    length = 0
    for piece in response.iter_text():
        first, *later = piece.split("\n")
        for at, part in enumerate((first, *later)):
            if at:  # the line before this part has ended
                yield "".join(parts).removesuffix("\r") if length <= MAX_LINE else None
                parts, length = [], 0
            length += len(part)
            if length <= MAX_LINE:
                parts.append(part)
            else:
                parts.clear()
