"""The methods that can be compared: strategies and baselines."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kuber.experiment.baselines.central import central
from kuber.experiment.baselines.ensemble import ensemble
from kuber.experiment.baselines.fedavg import fedavg
from kuber.experiment.baselines.fedavgm import fedavgm
from kuber.experiment.baselines.fedmd import fedmd
from kuber.experiment.baselines.fedprox import fedprox
from kuber.experiment.baselines.finetuned import finetuned
from kuber.experiment.baselines.scaffold import scaffold
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.experiment.engines.base import Engine
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import MetricsRecorder, RoundMetrics
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import Scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.views.delivery import DeliveryView

BASELINES: dict[str, Callable[[SynchronousEntities], None]] = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "fedavgm": fedavgm,
    "scaffold": scaffold,
    "finetuned": finetuned,
    "fedmd": fedmd,
    "central": central,
    "ensemble": ensemble,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """The metrics and deliveries of a method on one scenario."""

    metrics: list[RoundMetrics]  # of every entity at the end of every round
    deliveries: list[DeliveryView]


def perform(
    method: str, scenario: Scenario, *, engine: Engine, on_round: Callable[[], None] = lambda: None
) -> Performance:
    """Execute a method on a scenario; call `on_round` each time an entity completes a round.

    Raises SettingsError if the scenario lacks what the method needs.
    """
    if method in BASELINES:
        scenario = replace(scenario, proxy=None)  # they exchange the entities' own models
    runtime = simulated_runtime(scenario)
    recorder = MetricsRecorder(scenario, engine, make_learners(scenario, runtime), on_round)
    if method in BASELINES:
        BASELINES[method](SynchronousEntities(scenario, runtime, engine, recorder))
        return Performance(metrics=recorder.metrics(), deliveries=[])
    simulation = Simulation(scenario, engine=engine, recorder=recorder, runtime=runtime, progress=SilentProgress())
    simulation.run()
    return Performance(metrics=recorder.metrics(), deliveries=simulation.view.deliveries)
