"""Availability of the hub: while registry or vault do not answer, an entity continues without them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, get_args

from kuber.entity.hub.alerts import Alerts
from kuber.entity.hub.probe import HubProbe, Service
from kuber.errors import KUberError, ServiceError, ServiceUnavailableError

T = TypeVar("T")
SERVICES: tuple[Service, ...] = get_args(Service)


class HubAvailability:
    """Whether registry and vault answer.

    After a call without an answer no further one is made. Without a probe both are left alone until `reset`; with one
    it tries the service in the background, and `reset` allows calls again once it has answered.
    """

    def __init__(self, alerts: Alerts, probe: HubProbe | None = None) -> None:
        self._alerts = alerts
        self._probe = probe
        self._reasons: dict[Service, str] = {}  # of the services that do not answer

    @property
    def up(self) -> bool:
        """Whether the registry answers, as far as known."""
        return self.is_up("registry")

    def is_up(self, service: Service) -> bool:
        """Return whether the service answers, as far as known."""
        return service not in self._reasons

    @property
    def reason(self) -> str | None:
        """Reason why registry or vault are not called; None if both are."""
        return next(iter(self._reasons.values()), None)

    def call(self, function: Callable[[], T], default: T, *, action: str) -> T:
        """Return the result of a function that calls the hub; `default` when it is unreachable or the call fails.

        A failure is alerted as that of `action`.
        """
        try:
            return function()
        except ServiceUnavailableError:
            return default  # `using` has alerted
        except KUberError as error:
            self._alerts.failed(action, error)
            return default

    @contextmanager
    def using(self, service: Service) -> Iterator[None]:
        """Call a service in this context.

        Raises ServiceUnavailableError at once while it is unreachable, and takes note when it becomes so.
        """
        if service in self._reasons:
            raise ServiceUnavailableError(self._reasons[service])
        try:
            yield
        except ServiceUnavailableError as error:
            self._mark_down(service, error.message)
            raise
        except KUberError as error:
            if type(error) is not ServiceError:  # else perhaps something else answers at the hub's address
                self._mark_up(service)
            raise
        self._mark_up(service)

    def reset(self, *, retry: bool = False) -> None:
        """Allow calls of services that may answer again; with `retry` also of those the probe has not reached."""
        for service in tuple(self._reasons):
            probe = self._probe
            if retry or probe is None or not probe.covers(service) or probe.answers(service):
                del self._reasons[service]

    def _mark_down(self, service: Service, reason: str) -> None:
        if self._probe is None:
            self._reasons |= dict.fromkeys(SERVICES, reason)
        else:
            self._reasons[service] = reason
            if self._probe.covers(service):
                self._probe.watch(service)
        self._alerts.add(
            "unreachable",
            {"reason": reason, "service": service},
            f"The {service} is unreachable; training continues, and messages to it are queued. {reason}",
            cause=_cause(service),
        )

    def _mark_up(self, service: Service) -> None:
        if self._probe is not None:
            self._probe.succeeded(service)
        if self._alerts.is_known(_cause(service)):
            self._alerts.end(_cause(service))
            sentence = f"The {service} is reachable again."
            self._alerts.add("reachable", {"service": service}, sentence)
            self._alerts.end(sentence)


def _cause(service: Service) -> tuple[str, Service]:
    return "unreachable", service
