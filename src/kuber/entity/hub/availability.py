"""Availability of the hub: while it is unreachable an entity continues offline, and retries in its next round."""

from collections.abc import Callable
from typing import TypeVar

from kuber.entity.state.journal import Journal
from kuber.errors import ServiceUnavailableError

T = TypeVar("T")


class HubAvailability:
    """Whether registry and vault answer. After one call without an answer, none is made until `reset`."""

    def __init__(self, journal: Journal) -> None:
        self.up = True
        self._journal = journal

    def call(self, function: Callable[[], T], default: T) -> T:
        """Return the result of a call to the hub; `default` while it is unreachable."""
        if not self.up:
            return default
        try:
            return function()
        except ServiceUnavailableError as error:
            self.mark_down(error)
            return default

    def mark_down(self, error: ServiceUnavailableError) -> None:
        """Log that the hub is unreachable."""
        self.up = False
        self._journal.append("unreachable", {"reason": error.message})

    def reset(self) -> None:
        """Allow calls again."""
        self.up = True
