"""One entity of a simulation, with its simulated crashes: each restart resumes from the last checkpoint.

A simulated process is a greenlet: the unmodified code of the entity runs until virtual time has to pass, for a work
step or for a call to the hub, and continues when the event queue has reached that time.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from greenlet import GreenletExit, greenlet

from kuber.domain.deployment import AVERAGED, Deployed
from kuber.domain.event import Event, Kind
from kuber.domain.knowledge import Architecture
from kuber.entity.deployment import Decision
from kuber.entity.managed import ManagedEntity
from kuber.entity.state.blob_cache import MemoryBlobCache
from kuber.entity.state.checkpoint import State
from kuber.entity.work.steps import Work
from kuber.errors import ServiceUnavailableError
from kuber.experiment.engines.base import Engine
from kuber.experiment.simulation.event_queue import EventQueue
from kuber.experiment.world.conditions import Conditions
from kuber.learning.weights import Weights


class SimulationHost(Protocol):
    """The simulation, as its entities use it."""

    def log(self, entity: str, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Log an event at the current virtual time."""

    def begin_work(self, index: int) -> None:
        """Take note that an entity's work step was submitted to the engine."""

    def keep_idle(self, weights: Weights) -> Weights:
        """Move weights that are not in use out of the memory of the process."""

    def keep_round(self, index: int, round: int, weights: Weights) -> str | None:
        """Take the model at the end of a round; return the name of its file, if any."""

    def end_round(self, index: int, round: int, decision: Decision, weights: Weights, seconds: float) -> str | None:
        """Take the model deployed at the end of a round and the real seconds computed; return its file's name."""


class SimulatedEntity:
    """An entity under its conditions; it is the `EventSink` and the `CheckpointStore` of its processes."""

    def __init__(
        self,
        index: int,
        conditions: Conditions,
        *,
        queue: EventQueue,
        engine: Engine,
        host: SimulationHost,
        make: Callable[["SimulatedEntity"], ManagedEntity],
    ) -> None:
        """`make` returns the entity of a new process, with this event sink and checkpoint store."""
        self.index = index
        self.conditions = conditions
        self.pending = MemoryBlobCache()
        self._queue = queue
        self._engine = engine
        self._host = host
        self._make = make
        self._absences = deque(conditions.absences)
        self._process: greenlet | None = None
        self._state: State | None = None  # at the last checkpoint
        self._busy = 0.0  # real seconds of computing
        self._round = 0
        self._seq = 0
        self._models: deque[tuple[int, Weights]] = deque(maxlen=AVERAGED)  # at the end of the last rounds
        self._deployed: Weights = {}

    def schedule_start(self) -> None:
        """Schedule the start of the first process."""
        self._schedule_return(self.conditions.joins, self._start)

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass, in which other entities run. Called from within a process."""
        if seconds > 0:
            self._suspend(seconds)

    def execute(self, work: Work) -> Any:
        """Submit a work step to the engine, let its virtual time pass, and return its result."""
        duration = work.cost / self.conditions.speed
        future = self._engine.submit(work)
        self._host.begin_work(self.index)
        self._suspend(duration)
        result = future.result()
        self._busy += result.seconds
        return replace(result, seconds=duration)  # virtual seconds, so that the log is the same on every engine

    def execute_beside(self, work: Work) -> Any:
        """Return the result of a work step that takes no virtual time: it changes nothing that others see."""
        result = self._engine.submit(work).result()
        self._busy += result.seconds
        return replace(result, seconds=work.cost / self.conditions.speed)

    def stop(self) -> None:
        """Stop the current process, if there is one."""
        process, self._process = self._process, None
        if process is not None and not process.dead:
            process.throw(GreenletExit)

    def append(self, *, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Log an event. Events are numbered across processes: those that a crash undid stay in the log."""
        return self._log(kind, detail, round)

    def sync(self) -> None:
        """Do nothing: a simulation that is killed starts again, with the same result."""

    def save(self, state: State) -> None:
        """Store the state for the next process."""
        self._state = state

    def latest(self) -> State | None:
        """Return the state saved last."""
        return self._state

    def save_round(self, round: int, weights: Weights) -> str | None:
        """Pass on the model of a round. No time passes from here to the checkpoint, so no round ends twice."""
        if self._models:  # the one before is idle now
            number, earlier = self._models.pop()
            kept = self._host.keep_idle(earlier)
            self._models.append((number, kept))
            self._deployed = kept if self._deployed is earlier else self._deployed
        self._models.append((round, weights))
        return self._host.keep_round(self.index, round, weights)

    def load_round(self, round: int, architecture: Architecture) -> Weights | None:
        """Return the model at the end of one of the last rounds."""
        return dict(self._models).get(round)

    def load_deployed(self, deployed: Deployed, architecture: Architecture) -> Weights | None:
        """Return the weights of the model deployed before."""
        return self._deployed

    def deploy(self, decision: Decision, round: int) -> str | None:
        """Pass on the model deployed at the end of a round."""
        if decision.average is not None:
            self._deployed = self._host.keep_idle(decision.average)
        elif decision.deployed.round == round:
            self._deployed = self._models[-1][1]
        return self._host.end_round(self.index, round, decision, self._deployed, self._busy)

    def _schedule_return(self, when: float, act: Callable[[], None]) -> None:
        """Schedule a start at this time, or at the end of the absence that this time lies in."""
        while self._absences and self._absences[0].start <= when:
            when = max(when, self._absences.popleft().end)
        if when < inf:
            self._queue.schedule(when, self.index, act)

    def _start(self) -> None:
        self._process = process = greenlet(self._run)
        if self._absences:
            self._queue.schedule(self._absences[0].start, self.index, lambda: self._leave(process))
        process.switch()

    def _return(self) -> None:
        self._log("resumed", {}, self._round)
        self._start()

    def _leave(self, process: greenlet) -> None:
        """Begin an absence, unless the process has ended: what it did since its checkpoint is lost."""
        if process is not self._process or process.dead:
            return
        absence = self._absences[0]
        self.stop()
        self._log("stopped", {"reason": absence.reason}, self._round)
        self._schedule_return(absence.start, self._return)

    def _run(self) -> None:
        try:
            self._make(self).run()
        except ServiceUnavailableError:  # offline before the first round, or with messages queued after the last
            now = self._queue.now
            online = next((cut.end for cut in self.conditions.cuts if now in cut), now)
            self._schedule_return(online, self._start)

    def _suspend(self, seconds: float) -> None:
        process = self._process
        assert process is not None
        assert process.parent is not None
        self._queue.schedule(self._queue.now + seconds, self.index, lambda: self._continue(process))
        process.parent.switch()

    def _continue(self, process: greenlet) -> None:
        if process is self._process:
            process.switch()

    def _log(self, kind: Kind, detail: Mapping[str, Any], round: int) -> Event:
        event = self._host.log(str(self.index), self._seq, round, kind, detail)
        self._round = round
        self._seq += 1
        return event
