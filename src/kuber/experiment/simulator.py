"""`kuber simulate`: the entities of a scenario on ports in memory and a virtual clock.

Every entity has at most one work step under way. It ends, in virtual time, as long after it began as its compute
takes at the entity's speed; decisions are made in the order of those times (the lower entity first among equals), so
nothing depends on how fast the engine is, or on how many workers it has.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from typing import Any

from kuber import __version__
from kuber.client.memory_registry import MemoryRegistry
from kuber.client.memory_vault import MemoryVault
from kuber.domain.event import Event, Kind
from kuber.domain.knowledge import Architecture
from kuber.entity.checkpoint import State
from kuber.entity.loop import Entity, Steps
from kuber.entity.work import Evaluated, Learnt, Work
from kuber.errors import KnowledgeError
from kuber.experiment.arena import Writer
from kuber.experiment.crew import Watcher
from kuber.experiment.engines import THREADS, Engine
from kuber.experiment.entities import derived_identity, make_entity
from kuber.experiment.ledger import Account, Ledger
from kuber.experiment.recalls import ColumnRecalls
from kuber.experiment.scenario import Scenario
from kuber.experiment.stock import ArenaBlobs, ArenaHousing
from kuber.learning.architectures import initial_weights
from kuber.learning.runtime import Runtime, choose
from kuber.learning.weights import Weights
from kuber.views import RunView
from kuber.wire import encode_event

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)  # of virtual time


class Simulation:
    """One scenario, from its first round to its last. `run` once; then `view` and `published` tell what happened."""

    def __init__(
        self,
        scene: Scenario,
        *,
        engine: Engine,
        ledger: Ledger,
        runtime: Runtime,
        watcher: Watcher,
        log: Path | None = None,
        keep_round: Callable[[int, int, Weights], str | None] = lambda index, round, weights: None,
    ) -> None:
        """Events go to the file `log`, when one is named; `keep_round` may store a round's model under a name."""
        self.view = RunView(rounds=scene.settings.num_rounds)
        self.arena = Writer()
        self.vault = MemoryVault(ArenaBlobs(self.arena))
        self._housing = ArenaHousing(self.arena)
        self._starts: dict[tuple[int, int], Weights] = {}  # by id of the architecture, and seed
        self.registry = MemoryRegistry(vault=self.vault, clock=self._now, ids=self._next_id, recalls=ColumnRecalls)
        self._engine = engine
        self._ledger = ledger
        self._watcher = watcher
        self._keep_round = keep_round
        self._file = None if log is None else log.open("w", encoding="utf-8", buffering=1 << 16)
        self._time = 0.0  # virtual seconds
        self._ids = 0
        self._queue: list[tuple[float, int, float, Future[Any] | None]] = []  # end, entity, duration, result
        self._joins = scene.joins or (0.0,) * len(scene.private)
        self._leaves = scene.leaves or (inf,) * len(scene.private)
        self._speeds = scene.speeds
        self._busy = [0.0] * len(scene.private)  # real seconds of computing
        self.entities = [self._entity(scene, index, runtime) for index in range(len(scene.private))]
        self._steps: list[Steps] = []

    def run(self) -> None:
        """Every round of every entity."""
        self.append(
            entity=None, seq=0, round=0, kind="run-started", detail={"version": __version__, "resumed": False}
        )
        try:
            self._steps = [entity.steps() for entity in self.entities]
            for index, joins in enumerate(self._joins):
                heappush(self._queue, (joins, index, 0.0, None))
            while self._queue:
                self._time, index, duration, future = heappop(self._queue)
                if self._time <= self._leaves[index]:
                    self._begin(index, self._advance(index, duration, future))
            detail = {"status": "completed", "message": None}
            self.append(entity=None, seq=1, round=0, kind="run-ended", detail=detail)
        finally:
            if self._file is not None:
                self._file.close()

    def append(self, *, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """The `Log` of the entities: to the view, the watcher and the file, at the virtual time."""
        event = Event(time=self._now(), entity=entity, seq=seq, round=round, kind=kind, detail=detail)
        if self._file is not None:
            self._file.write(f"{encode_event(event)}\n")
        self.view.apply(event)
        self._watcher.on_event(event)
        return event

    def sync(self) -> None:
        """Nothing: a simulation that is killed is started again, and comes out the same."""

    def _entity(self, scene: Scenario, index: int, runtime: Runtime) -> Entity:
        return make_entity(
            scene,
            index,
            runtime=runtime,
            registry=self.registry,
            vault=self.vault,
            checkpoints=_Rounds(lambda round, weights: self._end_round(index, round, weights)),
            log=self,
            identity=derived_identity(scene.settings.seed, index),
            life=lambda: f"{index}",
            housing=self._housing,
            start=self._start,
        )

    def _start(self, architecture: Architecture, seed: int) -> Weights:
        """Initial weights, in memory once for all who begin with them."""
        key = id(architecture), seed
        if key not in self._starts:
            self._starts[key] = self._housing.keep(initial_weights(architecture, seed))
        return self._starts[key]

    def _begin(self, index: int, work: Work | None) -> None:
        """Put an entity's next work step under way; None when it has no more."""
        if work is not None:
            duration = work.cost / self._speeds[index]
            heappush(self._queue, (self._time + duration, index, duration, self._engine.submit(work)))
            self._watcher.on_progress(str(index), 0.0)

    def _advance(self, index: int, duration: float, future: Future[Any] | None) -> Work | None:
        """Let an entity decide upon a result, up to its next work step; an unsound teacher is its own business.

        Without a result, it joins.
        """
        steps = self._steps[index]
        if future is None:
            return next(steps, None)
        try:
            result: Learnt | Evaluated = future.result()
        except KnowledgeError as error:
            try:
                return steps.throw(error)
            except StopIteration:
                return None
        self._busy[index] += result.seconds
        try:
            return steps.send(replace(result, seconds=duration))  # what is logged is virtual, and always the same
        except StopIteration:
            return None

    def _end_round(self, index: int, round: int, weights: Weights) -> str | None:
        entity = self.view.entities[str(index)]
        account = Account(
            samples_trained=entity.samples_trained,
            samples_forward=entity.samples_forward,
            bytes_up=entity.bytes_up,
            bytes_down=entity.bytes_down,
            seconds=self._busy[index],
        )
        self._ledger.end_round(index, round, [weights], account)
        return self._keep_round(index, round, weights)

    def _now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self._time)

    def _next_id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"


class _Rounds:
    """The `Keeper` of a simulated entity: hands on the model of each round, and keeps no state."""

    def __init__(self, end_round: Callable[[int, Weights], str | None]) -> None:
        self._end_round = end_round

    def save(self, state: State) -> None:
        pass

    def latest(self) -> State | None:
        return None

    def save_round(self, round: int, weights: Weights) -> str | None:
        return self._end_round(round, weights)


def simulated_runtime(scene: Scenario) -> Runtime:
    """One thread, and a precision that is never probed: the result depends on nothing but the scenario."""
    settings = scene.settings
    return choose(
        device=settings.device,
        precision="float32" if settings.precision == "auto" else settings.precision,
        threads=THREADS,
        architecture=scene.architectures[0],
        batch_size=settings.batch_size,
    )
