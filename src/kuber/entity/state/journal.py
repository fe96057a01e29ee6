"""Journal of an entity: its state and its event log, moved together."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kuber.domain.event import Event, Kind
from kuber.entity.state.checkpoint import State
from kuber.entity.state.storage import Storage


class Journal:
    """State and event log of one entity: after a kill, neither has anything that the other lacks."""

    def __init__(self, name: str, state: State, storage: Storage) -> None:
        self.state = state
        self.name = name
        self._checkpoints = storage.checkpoints
        self._event_log = storage.event_log

    def append(self, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Append an event to the log, and return it."""
        state = self.state
        event = self._event_log.append(
            entity=self.name, seq=state.next_event, round=state.round, kind=kind, detail=detail
        )
        self.change(next_event=state.next_event + 1)
        return event

    def change(self, **changes: Any) -> None:
        """Change fields of the state; a kill before the next `save` undoes it."""
        self.state = replace(self.state, **changes)

    def save(self, **changes: Any) -> None:
        """Change fields of the state and save it, after the events that led to it."""
        self.change(**changes)
        self._event_log.sync()
        self._checkpoints.save(self.state)

    def save_weights(self) -> str | None:
        """Store the weights at the end of the round; return the name of their file, if any."""
        return self._checkpoints.save_round(self.state.round, self.state.weights)

    def key(self, action: str) -> str:
        """Return the idempotency key of an action in this round of this session."""
        return f"{self.state.session_id}/{self.state.round}/{action}"
