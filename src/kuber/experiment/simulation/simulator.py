"""`kuber simulate`: the entities of a scenario on ports in memory and a virtual clock.

Whatever happens is done in the order of virtual time (the lower entity first among equals), so nothing depends on how
fast the engine is, or on how many workers it has.
"""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kuber import __version__
from kuber.client.memory.registry import MemoryRegistry
from kuber.client.memory.vault import MemoryVault
from kuber.domain.event import Event, Kind
from kuber.domain.knowledge import Architecture
from kuber.entity.hub.access import HubAccess
from kuber.entity.managed import ManagedEntity
from kuber.entity.state.storage import Storage
from kuber.experiment.engines import THREADS, Engine
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
from kuber.views import RunView
from kuber.wire import encode_event

# When to look for garbage. Most of what entities make is records, which stay to the end: to look through them again
# and again took an eighth of the time of 4,000 entities.
GC_THRESHOLDS = (50_000, 20, 100)


class Simulation:
    """One scenario, from its first round to its last. `run` once; then `view` and `published` tell what happened."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        engine: Engine,
        recorder: MetricsRecorder,
        runtime: Runtime,
        progress: RunProgress,
        log: Path | None = None,
        keep_round: Callable[[int, int, Weights], str | None] = lambda index, round, weights: None,
    ) -> None:
        """Events go to the file `log`, when one is named; `keep_round` may store a round's model under a name."""
        self.view = RunView(rounds=scenario.settings.num_rounds)
        self.memory = MappedMemoryWriter()
        self.vault = MemoryVault(MappedBlobBytes(self.memory))
        self._housing = MappedWeightStore(self.memory)
        self._starts: dict[tuple[int, int], Weights] = {}  # by id of the architecture, and seed
        self._agenda = EventQueue()
        self.registry = MemoryRegistry(
            vault=self.vault, clock=lambda: self._agenda.time, ids=self._next_id, recalls=ColumnRecallIndex
        )
        self._scene = scenario
        self._runtime = runtime
        self._recorder = recorder
        self._progress = progress
        self._keep_round = keep_round
        self._file = None if log is None else log.open("w", encoding="utf-8", buffering=1 << 16)
        self._ids = 0
        self._gate = SharedBandwidth(scenario.world.bandwidth)
        self._residents = [
            SimulatedEntity(index, conditions, agenda=self._agenda, engine=engine, home=self, make=self._entity)
            for index, conditions in enumerate(scenario.world.entities)
        ]

    def run(self) -> None:
        """Every round of every entity."""
        self.note(None, 0, 0, "run-started", {"version": __version__, "resumed": False})
        usual = gc.get_threshold()
        gc.freeze()  # what was there before is no garbage of ours, and a look through it takes a fifth of a second
        gc.set_threshold(*GC_THRESHOLDS)
        try:
            for resident in self._residents:
                resident.come()
            self._agenda.run()
            self.note(None, 1, 0, "run-ended", {"status": "completed", "message": None})
        finally:
            gc.set_threshold(*usual)
            gc.unfreeze()
            for resident in self._residents:
                resident.end()
            if self._file is not None:
                self._file.close()

    def note(self, entity: str | None, seq: int, round: int, kind: Kind, detail: Mapping[str, Any]) -> Event:
        """Log an event at the virtual time that it is: to the view, the watcher and the file."""
        event = Event(time=self._agenda.time, entity=entity, seq=seq, round=round, kind=kind, detail=detail)
        if self._file is not None:
            self._file.write(f"{encode_event(event)}\n")
        self.view.apply(event)
        self._progress.on_event(event)
        return event

    def begin_work(self, index: int) -> None:
        """Tell the watcher that an entity computes."""
        self._progress.on_progress(str(index), 0.0)

    def end_round(self, index: int, round: int, weights: Weights, seconds: float) -> str | None:
        """Take the model of an entity at the end of a round."""
        entity = self.view.entity(str(index))
        cost = Cost(
            samples_trained=entity.samples_trained,
            samples_forward=entity.samples_forward,
            bytes_up=entity.bytes_up,
            bytes_down=entity.bytes_down,
            seconds=seconds,
        )
        self._recorder.end_round(index, round, [weights], cost, time=self._agenda.now)
        return self._keep_round(index, round, weights)

    def _entity(self, resident: SimulatedEntity) -> ManagedEntity:
        """The entity of a resident's new life."""
        scenario, index = self._scene, resident.index
        link = NetworkLink(
            resident.conditions,
            self._gate,
            patience=scenario.world.patience,
            clock=lambda: self._agenda.now,
            sleep=resident.pause,
        )
        return make_entity(
            scenario,
            index,
            runtime=self._runtime,
            hub=HubAccess(
                registry=DelayedRegistry(self.registry, link),
                vault=DelayedVault(self.vault, link),
                identity=derived_identity(scenario.settings.seed, index),
            ),
            storage=Storage(
                checkpoints=resident, event_log=resident, pending=resident.waiting, weights=self._housing
            ),
            execute=resident.execute,
            artifacts=artifacts_of(resident.conditions.poison, classes=scenario.task.classes, seed=index),
            session_id=f"{index}",
            start=self._start,
        )

    def _start(self, architecture: Architecture, seed: int) -> Weights:
        """Initial weights, in memory once for all who begin with them."""
        key = id(architecture), seed
        if key not in self._starts:
            self._starts[key] = self._housing.keep(initial_weights(architecture, seed))
        return self._starts[key]

    def _next_id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"


def simulated_runtime(scenario: Scenario) -> Runtime:
    """One thread, and a precision that is never probed: the result depends on nothing but the scenario."""
    settings = scenario.settings
    return choose_runtime(
        device=settings.device,
        precision="float32" if settings.precision == "auto" else settings.precision,
        threads=THREADS,
        architecture=scenario.architectures[0],
        batch_size=settings.batch_size,
    )
