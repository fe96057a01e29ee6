"""Where an entity stands: its state, saved so that nothing is lost, and its events, so that none is there twice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kuber.domain.event import Kind
from kuber.entity.state.checkpoint import CheckpointStore, State
from kuber.entity.state.event_log import EventSink


class Journal:
    """The state of one entity and its event log, moved together."""

    def __init__(self, name: str, state: State, *, checkpoints: CheckpointStore, log: EventSink) -> None:
        self.state = state
        self.name = name
        self._checkpoints = checkpoints
        self._log = log

    def append(self, kind: Kind, detail: Mapping[str, Any]) -> None:
        """Append an event."""
        state = self.state
        self._log.append(entity=self.name, seq=state.seq, round=state.round, kind=kind, detail=detail)
        self.change(seq=state.seq + 1)

    def change(self, **changes: Any) -> None:
        """Change the state; a kill before the next `save` forgets it."""
        self.state = replace(self.state, **changes)

    def save(self, **changes: Any) -> None:
        """Change the state and save it, after the events that led to it."""
        self.change(**changes)
        self._log.sync()
        self._checkpoints.save(self.state)

    def key(self, act: str) -> str:
        """The idempotency key of an act in this round of this life."""
        return f"{self.state.life}/{self.state.round}/{act}"
