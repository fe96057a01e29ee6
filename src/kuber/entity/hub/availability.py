"""Whether the hub answers: an entity goes on without it, and asks again in its next round."""

from collections.abc import Callable
from typing import TypeVar

from kuber.entity.state.journal import Journal
from kuber.errors import ServiceUnavailableError

T = TypeVar("T")


class HubAvailability:
    """The line to registry and vault. Once either gives no answer, neither is asked until `renew`."""

    def __init__(self, journal: Journal) -> None:
        self.up = True
        self._journal = journal

    def ask(self, call: Callable[[], T], otherwise: T) -> T:
        """What the call returns; `otherwise` while the hub is away."""
        if not self.up:
            return otherwise
        try:
            return call()
        except ServiceUnavailableError as error:
            self.lose(error)
            return otherwise

    def lose(self, error: ServiceUnavailableError) -> None:
        """Log that the hub is away."""
        self.up = False
        self._journal.append("unreachable", {"reason": error.message})

    def renew(self) -> None:
        """Let the hub be asked again."""
        self.up = True
