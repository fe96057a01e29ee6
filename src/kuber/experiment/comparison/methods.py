"""Every method that can be compared: the strategies of entities, and the baselines."""

from collections.abc import Callable
from dataclasses import dataclass

from kuber.domain.event import Event
from kuber.experiment.baselines.central import central
from kuber.experiment.baselines.ensemble import ensemble
from kuber.experiment.baselines.fedavg import fedavg
from kuber.experiment.baselines.fedmd import fedmd
from kuber.experiment.baselines.fedprox import fedprox
from kuber.experiment.baselines.synchronous import Rounds, SynchronousEntities, conduct
from kuber.experiment.engines import Engine
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder, RoundMetrics
from kuber.experiment.scenario import Scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.views import DeliveryView

BASELINES: dict[str, Callable[[SynchronousEntities], Rounds]] = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "fedmd": fedmd,
    "central": central,
    "ensemble": ensemble,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """What a method did on one scenario."""

    standings: list[RoundMetrics]  # every entity at the end of every round
    deliveries: list[DeliveryView]


def perform(
    method: str, scene: Scenario, *, engine: Engine, on_round: Callable[[], None] = lambda: None
) -> Performance:
    """Play a method to the end; `on_round` is told each time an entity ends a round.

    Raises SettingsError when the scenario lacks what the method needs.
    """
    runtime = simulated_runtime(scene)
    ledger = MetricsRecorder(scene, engine, make_learners(scene, runtime), on_round)
    if method in BASELINES:
        parties = SynchronousEntities(scene, runtime, ledger)
        conduct(BASELINES[method](parties), parties, engine)
        return Performance(standings=ledger.standings(), deliveries=[])
    simulation = Simulation(scene, engine=engine, ledger=ledger, runtime=runtime, watcher=SilentProgress())
    simulation.run()
    return Performance(standings=ledger.standings(), deliveries=simulation.view.deliveries)


class SilentProgress:
    """A `Watcher` that nobody looks at."""

    def on_event(self, event: Event) -> None: ...

    def on_progress(self, entity: str, fraction: float) -> None: ...
