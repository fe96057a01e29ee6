"""Journal of an entity: its state and its event log, moved together."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kuber.domain.event import Event, Kind, utc_now
from kuber.domain.knowledge import Architecture
from kuber.entity.deployment import Decision, earlier_models
from kuber.entity.state.checkpoint import State
from kuber.entity.state.storage import Storage
from kuber.errors import first_line
from kuber.learning.weights import Weights

log = logging.getLogger("kuber")


class Journal:
    """State and event log of one entity: after a kill, neither has anything that the other lacks."""

    def __init__(self, name: str, state: State, storage: Storage, *, tolerant: bool = False) -> None:
        """With `tolerant`, warn when the disk fails, once until it works again, and continue; else raise OSError."""
        self.state = state
        self.name = name
        self._tolerant = tolerant
        self._failed = False  # the last write
        self._checkpoints = storage.checkpoints
        self._event_log = storage.event_log

    def append(self, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Append an event to the log, and return it."""
        state = self.state
        place: Any = {"entity": self.name, "seq": state.next_event, "round": state.round}
        event = Event(**place, time=utc_now(), kind=kind, detail=detail)
        with self._tolerated():
            event = self._event_log.append(**place, kind=kind, detail=detail)
            self.change(next_event=state.next_event + 1)
        return event

    def change(self, **changes: Any) -> None:
        """Change fields of the state; a kill before the next `save` undoes it."""
        self.state = replace(self.state, **changes)

    def save(self, **changes: Any) -> None:
        """Change fields of the state and save it, after the events that led to it."""
        self.change(**changes)
        with self._tolerated():
            self._event_log.sync()
            self._checkpoints.save(self.state)
            self._failed = False

    def save_weights(self) -> str | None:
        """Store the weights at the end of the round; return the name of their file, if any."""
        return self._checkpoints.save_round(self.state.round, self.state.weights)

    def earlier_models(self, architecture: Architecture) -> tuple[Weights, ...]:
        """Return the models of the rounds before that an average at the end of this one has, the newest first."""
        return earlier_models(self._checkpoints, self.state.round, architecture)

    def deployed_weights(self, decision: Decision, architecture: Architecture) -> Weights | None:
        """Return the weights that a decision deploys; None if they are not kept. Raises KnowledgeError if damaged."""
        deployed = decision.deployed
        if decision.average is not None:
            return decision.average
        if deployed.round == self.state.round and not deployed.averaged:
            return self.state.weights
        return self._checkpoints.load_deployed(deployed, architecture)

    def deploy(self, decision: Decision) -> str | None:
        """Make a model the deployed one, and store it; return the name of its file, if any."""
        self.change(deployed=decision.deployed)
        return self._checkpoints.deploy(decision, self.state.round)

    def key(self, action: str) -> str:
        """Return the idempotency key of an action in this round of this session."""
        return f"{self.state.session_id}/{self.state.round}/{action}"

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._tolerant:
                raise
            if not self._failed:
                reason = error.strerror or first_line(error)
                log.warning("Entity %r: its state cannot be saved (%s); training continues.", self.name, reason)
            self._failed = True
