"""Probe of a hub that does not answer, in the background."""

import threading
from collections.abc import Callable, Mapping
from typing import Literal

Service = Literal["registry", "vault"]
Pause = Callable[[float], bool]  # seconds -> whether the probe was closed meanwhile

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries


class HubProbe:
    """Tries services that do not answer, each in a daemon thread, until they answer; it changes nothing else.

    A service that answers the probe and then fails again is tried less and less often, up to once a minute, until
    `succeeded` says that it works.
    """

    def __init__(self, checks: Mapping[Service, Callable[[], None]], *, pause: Pause | None = None) -> None:
        """Try services by `checks`, functions that raise unless their service answers; `pause` waits before a try."""
        self._checks = checks
        self._closed = threading.Event()
        self._pause = pause or self._closed.wait
        self._pauses: dict[Service, float] = {}  # before the next try, of services that failed
        self._threads: dict[Service, threading.Thread] = {}
        self._answering: set[Service] = set()

    def covers(self, service: Service) -> bool:
        """Return whether this service can be tried in the background."""
        return service in self._checks

    def watch(self, service: Service) -> None:
        """Begin to try a service, unless it is tried already."""
        thread = self._threads.get(service)
        if self._closed.is_set() or (thread is not None and thread.is_alive()):
            return
        self._answering.discard(service)
        name = f"kuber-{service}-probe"
        self._threads[service] = threading.Thread(target=self._try_until_it_answers, args=(service,), name=name)
        self._threads[service].daemon = True  # it must not keep the owner's process alive
        self._threads[service].start()

    def answers(self, service: Service) -> bool:
        """Return whether the service has answered since `watch`."""
        return service in self._answering

    def succeeded(self, service: Service) -> None:
        """Take note that the service works, so that the next time it is tried soon again."""
        self._pauses.pop(service, None)

    def close(self) -> None:
        """End the threads, after the try under way."""
        self._closed.set()

    def _try_until_it_answers(self, service: Service) -> None:
        while True:
            seconds = self._pauses.get(service, FIRST_PAUSE)
            self._pauses[service] = min(2 * seconds, LONGEST_PAUSE)
            if self._pause(seconds) or self._closed.is_set():
                return
            try:
                self._checks[service]()
            except Exception:  # noqa: BLE001, S112 - whatever it is, the service does not answer as it should
                continue
            self._answering.add(service)
            return
