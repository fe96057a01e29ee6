"""Simulation of a scenario: its entities on ports in memory and a virtual clock.

Everything happens in the order of virtual time (the lower entity first among equals), so the result depends neither
on the speed of the engine nor on its number of workers.
"""

import gc
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from kuber import __version__
from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.event import Event, Kind
from kuber.domain.knowledge import Architecture
from kuber.domain.member import HUB_LENGTH
from kuber.domain.prior import Frequencies, carried_prior
from kuber.entity.clock import Clock
from kuber.entity.deployment import Decision
from kuber.entity.hub.access import HubAccess
from kuber.entity.managed import ManagedEntity
from kuber.entity.state.storage import Storage
from kuber.experiment.engines.base import THREADS, Engine
from kuber.experiment.engines.mapped_memory import MappedMemoryWriter
from kuber.experiment.entity_factory import derived_identity, make_entity
from kuber.experiment.metrics import Cost, MetricsRecorder
from kuber.experiment.progress import RunProgress
from kuber.experiment.scenario import Scenario
from kuber.experiment.simulation.event_queue import EventQueue
from kuber.experiment.simulation.network import DelayedRegistry, DelayedVault, NetworkLink, SharedBandwidth
from kuber.experiment.simulation.recall_index import ColumnRecallIndex
from kuber.experiment.simulation.shared_weights import MappedBlobBytes, MappedWeightStore
from kuber.experiment.simulation.simulated_entity import SimulatedEntity
from kuber.experiment.world.attacks import artifacts_of
from kuber.learning.architectures import initial_weights
from kuber.learning.runtime import Runtime, choose_runtime
from kuber.learning.weights import Weights
from kuber.views.run import RunView
from kuber.wire.event import encode_event

# Most objects are records, which live to the end of the simulation: with the usual thresholds, scanning them again
# and again took an eighth of the time of 4,000 entities.
GC_THRESHOLDS = (50_000, 20, 100)
SIMULATED_HUB = "0" * HUB_LENGTH  # the same id in every simulation, as is everything else


class ModelStore:
    """Stores models of entities; this one stores none."""

    def keep_round(self, entity: int, round: int, weights: Weights) -> str | None:
        """Take the model at the end of a round; return the name of its file, if any."""
        return None

    def keep_deployed(self, entity: int, round: int, decision: Decision, weights: Weights) -> str | None:
        """Take the model deployed at the end of a round; return the name of its file, if any."""
        return None


class Simulation:
    """Simulation of one scenario. Call `run` once; then read `view`, `registry` and `vault`."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        engine: Engine,
        recorder: MetricsRecorder,
        runtime: Runtime,
        progress: RunProgress,
        log: Path | None = None,
        store: ModelStore | None = None,
    ) -> None:
        """Write events to the file `log`, if any; `store` may keep models."""
        self.view = RunView(rounds=scenario.settings.num_rounds)
        self.memory = MappedMemoryWriter()
        self.vault = MemoryVault(MappedBlobBytes(self.memory))
        self._weights = MappedWeightStore(self.memory)
        self._initial: dict[tuple[int, int], Weights] = {}  # by id of the architecture, and seed
        self._carried: dict[int, Frequencies] = {}  # prior in each entity's logits
        self._queue = EventQueue()
        ids = count(1)
        self.registry = MemoryRegistry(
            vault=self.vault,
            clock=lambda: self._queue.time,
            ids=lambda: f"{next(ids):032x}",
            recalls=ColumnRecallIndex,
            hub=SIMULATED_HUB,
        )
        self._scenario = scenario
        self._runtime = runtime
        self._recorder = recorder
        self._progress = progress
        self._store = store or ModelStore()
        self._file = None if log is None else log.open("w", encoding="utf-8", buffering=1 << 16)
        self._bandwidth = SharedBandwidth(scenario.world.bandwidth)
        self._entities = [
            SimulatedEntity(index, conditions, queue=self._queue, engine=engine, host=self, make=self._make_entity)
            for index, conditions in enumerate(scenario.world.entities)
        ]

    def run(self) -> None:
        """Simulate every round of every entity."""
        self.log(None, 0, 0, "run-started", {"version": __version__, "resumed": False})
        thresholds = gc.get_threshold()
        gc.freeze()  # older objects are no garbage of ours, and scanning them takes a fifth of a second
        gc.set_threshold(*GC_THRESHOLDS)
        try:
            for entity in self._entities:
                entity.schedule_start()
            self._queue.run()
            self.log(None, 1, 0, "run-ended", {"status": "completed", "message": None})
        finally:
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            for entity in self._entities:
                entity.stop()
            if self._file is not None:
                self._file.close()

    def log(self, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Log an event at the current virtual time: to the view, the progress display and the file."""
        event = Event(time=self._queue.time, entity=entity, seq=seq, round=round, kind=kind, detail=detail)
        if self._file is not None:
            self._file.write(f"{encode_event(event)}\n")
        self.view.apply(event)
        self._progress.on_event(event)
        return event

    def begin_work(self, index: int) -> None:
        """Show that an entity computes."""
        self._progress.on_progress(str(index), 0.0)

    def keep_idle(self, weights: Weights) -> Weights:
        """Store weights in mapped memory, unless they are there."""
        return self._weights.keep(weights)

    def keep_round(self, index: int, round: int, weights: Weights) -> str | None:
        """Store the model of an entity at the end of a round."""
        return self._store.keep_round(index, round, weights)

    def end_round(self, index: int, round: int, decision: Decision, weights: Weights, seconds: float) -> str | None:
        """Evaluate and store the model that an entity deploys at the end of a round."""
        entity = self.view.entity(str(index))
        cost = Cost(
            samples_trained=entity.samples_trained,
            samples_forward=entity.samples_forward + decision.forward,
            bytes_up=entity.bytes_up,
            bytes_down=entity.bytes_down,
            seconds=seconds,
        )
        if index not in self._carried:
            phase = self._scenario.strategy.local_phase()
            self._carried[index] = carried_prior(phase, self._scenario.class_counts(index))
        carried = self._carried[index]
        choice = decision.deployed.choice(round)
        now = self._queue.now
        self._recorder.end_round(
            index,
            round,
            [weights],
            cost,
            time=now,
            carried=carried,
            deployed=choice,
            personal=decision.personal,
            private=decision.private,
        )
        self._recorder.evaluate()
        return self._store.keep_deployed(index, round, decision, weights)

    def _make_entity(self, simulated: SimulatedEntity) -> ManagedEntity:
        """Make the entity of a new simulated process."""
        scenario, index = self._scenario, simulated.index
        clock = Clock(now=lambda: self._queue.now, sleep=simulated.sleep)
        link = NetworkLink(
            simulated.conditions,
            self._bandwidth,
            patience=scenario.world.patience,
            clock=clock,
        )
        return make_entity(
            scenario,
            index,
            runtime=self._runtime,
            hub=HubAccess(
                registry=DelayedRegistry(self.registry, link),
                vault=DelayedVault(self.vault, link),
                identity=derived_identity(scenario.settings.seed, index),
                clock=clock,
            ),
            storage=Storage(
                checkpoints=simulated, event_log=simulated, pending=simulated.pending, weights=self._weights
            ),
            execute=simulated.execute,
            execute_beside=simulated.execute_beside,
            artifacts=artifacts_of(simulated.conditions.poison, classes=scenario.task.classes, seed=index),
            session_id=f"{index}",
            start=self._initial_weights,
        )

    def _initial_weights(self, architecture: Architecture, seed: int) -> Weights:
        """Return initial weights, in memory once for all entities that start from them."""
        key = id(architecture), seed
        if key not in self._initial:
            self._initial[key] = self._weights.keep(initial_weights(architecture, seed))
        return self._initial[key]


def simulated_runtime(scenario: Scenario) -> Runtime:
    """Return one thread and a precision that is not probed, so that the result depends on the scenario only."""
    settings = scenario.settings
    return choose_runtime(
        device=settings.device,
        precision="float32" if settings.precision == "auto" else settings.precision,
        threads=THREADS,
        architecture=scenario.architectures[0],
        batch_size=settings.batch_size,
    )
