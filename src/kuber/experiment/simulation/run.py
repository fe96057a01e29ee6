"""`kuber simulate`: one simulated run, from settings to report."""

import time
from dataclasses import replace
from pathlib import Path

from kuber.data.datasets import Echo
from kuber.entity.deployment import Decision
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME
from kuber.experiment.engines.base import Engine
from kuber.experiment.engines.factory import EngineConfig, open_engine
from kuber.experiment.entity_factory import entity_folder, make_learners
from kuber.experiment.metrics import MetricsRecorder, RoundMetrics
from kuber.experiment.progress import RunProgress
from kuber.experiment.run_folder import write_runtime
from kuber.experiment.run_result import HeldOutAccuracy
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.simulator import ModelStore, Simulation, simulated_runtime
from kuber.learning.weights import Weights
from kuber.settings import Settings
from kuber.views.result import RunResult


def run(
    settings: Settings, folder: Path, *, engine_config: EngineConfig, progress: RunProgress, echo: Echo
) -> RunResult:
    """Simulate a run; write its result, plots, report and the last model of each entity to `folder`."""
    start = time.perf_counter()
    with open_engine(engine_config) as engine:  # before the data are loaded: it may be refused
        scenario, metrics = _simulate(settings, folder, engine, progress, echo)
    held_out: dict[str, list[HeldOutAccuracy]] = {}
    for entry in metrics:
        accuracy = HeldOutAccuracy(
            general=entry.evaluation.accuracy, own=entry.own_accuracy, private=entry.private_accuracy
        )
        held_out.setdefault(str(entry.entity), []).append(accuracy)
    for index in range(len(scenario.private)):
        if str(index) not in held_out:
            echo(f"Entity {index} completed no round and is left out of the result.")
    from kuber.experiment.reports.conclude import conclude  # loading matplotlib would delay the start by a second

    return conclude(scenario, folder, held_out, wall=time.perf_counter() - start)


class LastModels(ModelStore):
    """Stores the model at the end of the last round, and the deployed one, in the folder of each entity."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self._folder = folder
        self._rounds = rounds

    def keep_round(self, entity: int, round: int, weights: Weights) -> str | None:
        return self._checkpoints(entity).save_round(round, weights) if round == self._rounds else None

    def keep_deployed(self, entity: int, round: int, decision: Decision, weights: Weights) -> str | None:
        if round < self._rounds:
            return None
        checkpoints, deployed = self._checkpoints(entity), decision.deployed
        if not deployed.averaged:
            checkpoints.save_round(deployed.round, weights)
        return checkpoints.deploy(replace(decision, average=weights if deployed.averaged else None), round)

    def _checkpoints(self, entity: int) -> Checkpoints:
        return Checkpoints(entity_folder(self._folder, entity))


def _simulate(
    settings: Settings, folder: Path, engine: Engine, progress: RunProgress, echo: Echo
) -> tuple[Scenario, list[RoundMetrics]]:
    scenario = load_scenario(settings, verify=True, echo=echo)
    runtime = simulated_runtime(scenario)
    write_runtime(folder, runtime)

    echo(f"The run folder is {folder}.")
    recorder = MetricsRecorder(scenario, engine, make_learners(scenario, runtime))
    simulation = Simulation(
        scenario,
        engine=engine,
        recorder=recorder,
        runtime=runtime,
        progress=progress,
        log=folder / FILE_NAME,
        store=LastModels(folder, settings.num_rounds),
    )
    simulation.run()
    return scenario, recorder.metrics()
