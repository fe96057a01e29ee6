"""One entity of a simulated world, through all its lives: each goes on from the checkpoint that the last one left.

A life is a greenlet: the entity's own code runs until time must go by, for a work step or for a call on its way, and
runs on when the agenda has come to that time.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from greenlet import GreenletExit, greenlet

from kuber.domain.event import Event, Kind
from kuber.entity.managed import ManagedEntity
from kuber.entity.state.blob_cache import MemoryBlobCache
from kuber.entity.state.checkpoint import State
from kuber.entity.work.steps import Work
from kuber.errors import ServiceUnavailableError
from kuber.experiment.engines import Engine
from kuber.experiment.simulation.event_queue import EventQueue
from kuber.experiment.world.conditions import Conditions
from kuber.learning.weights import Weights


class SimulationHost(Protocol):
    """What the simulation does for its residents."""

    def note(self, entity: str, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Log an event at the virtual time that it is."""
        ...

    def begin_work(self, index: int) -> None:
        """Hear that a work step was handed to the engine."""
        ...

    def end_round(self, index: int, round: int, weights: Weights, seconds: float) -> str | None:
        """Take the model at the end of a round, after so many real seconds of computing; the file's name, if any."""
        ...


class SimulatedEntity:
    """An entity under its conditions. It is `Log` and `CheckpointStore` of its lives."""

    def __init__(
        self,
        index: int,
        conditions: Conditions,
        *,
        agenda: EventQueue,
        engine: Engine,
        home: SimulationHost,
        make: Callable[["SimulatedEntity"], ManagedEntity],
    ) -> None:
        """`make` makes the entity of a new life, on this log and keeper."""
        self.index = index
        self.conditions = conditions
        self.waiting = MemoryBlobCache()  # what the hub has not taken yet
        self._agenda = agenda
        self._engine = engine
        self._home = home
        self._make = make
        self._absences = deque(conditions.absences)
        self._life: greenlet | None = None
        self._state: State | None = None  # at its last checkpoint
        self._busy = 0.0  # real seconds of computing
        self._round = 0
        self._seq = 0

    def come(self) -> None:
        """Plan the first life."""
        self._plan_return(self.conditions.joins, self._begin)

    def pause(self, seconds: float) -> None:
        """Let this much virtual time go by, and others live on meanwhile. Called from within a life."""
        if seconds > 0:
            self._sleep(seconds)

    def execute(self, work: Work) -> Any:
        """Submit a work step to the engine, let its virtual time pass, and return its result."""
        duration = work.cost / self.conditions.speed
        future = self._engine.submit(work)
        self._home.begin_work(self.index)
        self._sleep(duration)
        result = future.result()
        self._busy += result.seconds
        return replace(result, seconds=duration)  # virtual seconds, so that the log is the same on every engine

    def end(self) -> None:
        """End the life that is under way, if any."""
        life, self._life = self._life, None
        if life is not None and not life.dead:
            life.throw(GreenletExit)

    def append(self, *, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """As the Log's. Events are counted through all lives: what a crash undid stays told."""
        return self._note(kind, detail, round)

    def sync(self) -> None:
        """Nothing: a simulation that is killed is started again, and comes out the same."""

    def save(self, state: State) -> None:
        """Keep the state for the next life."""
        self._state = state

    def latest(self) -> State | None:
        """The state saved last."""
        return self._state

    def save_round(self, round: int, weights: Weights) -> str | None:
        """Hand on the model of a round. No time goes by from here to the checkpoint, so no round ends twice."""
        return self._home.end_round(self.index, round, weights, self._busy)

    def _plan_return(self, when: float, act: Callable[[], None]) -> None:
        """Plan to be there at this time, or when the absence is over that it lies in."""
        while self._absences and self._absences[0].start <= when:
            when = max(when, self._absences.popleft().end)
        if when < inf:
            self._agenda.schedule(when, self.index, act)

    def _begin(self) -> None:
        self._life = life = greenlet(self._live)
        if self._absences:
            self._agenda.schedule(self._absences[0].start, self.index, lambda: self._stop(life))
        life.switch()

    def _return(self) -> None:
        self._note("resumed", {}, self._round)
        self._begin()

    def _stop(self, life: greenlet) -> None:
        """Be away from now on, unless that life is over: what it did since its checkpoint is lost."""
        if life is not self._life or life.dead:
            return
        absence = self._absences[0]
        self.end()
        self._note("stopped", {"reason": absence.reason}, self._round)
        self._plan_return(absence.start, self._return)

    def _live(self) -> None:
        try:
            self._make(self).run()
        except ServiceUnavailableError:  # away before the first round, or with something still to be told
            now = self._agenda.now
            over = next((cut.end for cut in self.conditions.cuts if now in cut), now)
            self._plan_return(over, self._begin)

    def _sleep(self, seconds: float) -> None:
        life = self._life
        assert life is not None
        assert life.parent is not None
        self._agenda.schedule(self._agenda.now + seconds, self.index, lambda: self._wake(life))
        life.parent.switch()

    def _wake(self, life: greenlet) -> None:
        if life is self._life:
            life.switch()

    def _note(self, kind: Kind, detail: Mapping[str, Any], round: int) -> Event:
        event = self._home.note(str(self.index), self._seq, round, kind, detail)
        self._round = round
        self._seq += 1
        return event
