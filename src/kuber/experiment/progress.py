"""Observers of a run."""

from typing import Protocol

from kuber.domain.event import Event


class RunProgress(Protocol):
    """Shows a run while it is under way."""

    def on_event(self, event: Event) -> None: ...

    def on_progress(self, entity: str, fraction: float) -> None:
        """Show how far an entity is in its work step, 0 to 1."""

    def on_evaluation(self, done: int, total: int) -> None:
        """Show how many models have been evaluated on the held-out test set, after the last round."""


class SilentProgress:
    """A `RunProgress` that shows nothing."""

    def on_event(self, event: Event) -> None: ...

    def on_progress(self, entity: str, fraction: float) -> None: ...

    def on_evaluation(self, done: int, total: int) -> None: ...
