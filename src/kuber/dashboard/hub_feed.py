"""Live view of the hub, which a thread keeps up to date from the registry's events."""

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
from kuber.views.hub import HubView

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two attempts to reach an unreachable hub


@dataclass(frozen=True, kw_only=True, slots=True)
class HubOffline:
    """Why the hub is unreachable, and since when."""

    reason: str
    since: datetime
    refused: bool = False  # the hub answers, but rejects the dashboard's token


class HubFeed:
    """Follows the events of a registry from the first on, and reconnects to an unreachable hub.

    Read `view` inside `reading`, where it does not change. `version` changes whenever there is something new to draw.
    """

    def __init__(self, registry: HttpRegistry) -> None:
        self.view = HubView()
        self.version = 0
        self.caught_up = False  # whether the history has been read
        self.offline: HubOffline | None = None
        self._registry = registry
        self._lock = threading.RLock()  # drawing a page may read again
        self._closing = threading.Event()
        self._reader = EventReader(
            registry,
            self._apply,
            on_open=self._mark_online,
            on_restart=self._begin_again,
            on_missed=self._note_missed,
        )
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)

    def open(self) -> None:
        """Start reading."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading. A pending response ends with its connection."""
        self._closing.set()

    @contextmanager
    def reading(self) -> Iterator[HubView]:
        """Yield the view, which does not change inside the context."""
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
            since = self.offline.since if self.offline else datetime.now(UTC)
            self.offline = HubOffline(reason=reason, since=since, refused=refused)
            self.version += 1
            self._closing.wait(PAUSE)

    def _mark_online(self) -> None:
        if self.offline is not None:
            self.offline = None
            self.version += 1

    def _begin_again(self) -> None:
        with self._lock:
            self.view = HubView()
        self.version += 1

    def _note_missed(self, until: datetime) -> None:
        with self._lock:
            self.view.missed_until = until
        self.version += 1

    def _apply(self, number: int, entry: AuditEntry) -> None:
        with self._lock:
            try:
                self.view.apply(number, entry)
            except (KeyError, TypeError, ValueError):  # from a registry of another version
                log.warning("ignored event %d: its details do not fit %r", number, entry.act)
        self.version += 1
