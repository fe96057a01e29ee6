"""What the pages draw: a view of the hub that a thread of its own keeps up to date."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from kuber.client.event_stream import EventReader
from kuber.client.registry import HttpRegistry
from kuber.domain.auth import AuditEntry
from kuber.errors import KUberError, NotAuthorizedError
from kuber.views import HubView

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two tries to reach a hub that is away


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOffline:
    """That the hub gives no answer: why, and since when."""

    reason: str
    since: datetime
    refused: bool = False  # it answers, and does not know the dashboard's token


class HubFeed:
    """Reads the events of a registry from the first on, for as long as it is open; a hub that is away is asked again.

    `view` is whole between two events: read it inside `reading`. `version` is another number whenever there is
    something new to draw.
    """

    def __init__(self, registry: HttpRegistry) -> None:
        self.view = HubView()
        self.version = 0
        self.caught_up = False  # whether all that had happened before has been read
        self.away: HubOffline | None = None
        self._registry = registry
        self._lock = threading.RLock()  # a page that draws may look again
        self._closing = threading.Event()
        self._reader = EventReader(registry, self._take, on_open=self._found)
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)

    def open(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no further. An answer that is awaited ends with its connection."""
        self._closing.set()

    @contextmanager
    def reading(self) -> Iterator[HubView]:
        """The view, which does not change while this is open."""
        with self._lock:
            yield self.view

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                if not self.caught_up:
                    self._reader.read()
                    self.caught_up = True
                    self.version += 1
                if self._closing.is_set():
                    return
                self._reader.read(follow=True)
                reason, refused = f"The registry at {self._registry.url} ended the connection.", False
            except KUberError as error:
                reason, refused = error.message, isinstance(error, NotAuthorizedError)
            since = self.away.since if self.away else datetime.now(UTC)
            self.away = HubOffline(reason=reason, since=since, refused=refused)
            self.version += 1
            self._closing.wait(PAUSE)

    def _found(self) -> None:
        if self.away is not None:
            self.away = None
            self.version += 1

    def _take(self, number: int, entry: AuditEntry) -> None:
        with self._lock:
            try:
                self.view.apply(number, entry)
            except (KeyError, TypeError, ValueError):  # told by a registry of another version
                log.warning("passed over event %d: its details are not those of %r", number, entry.act)
        self.version += 1
