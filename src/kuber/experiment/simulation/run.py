"""One simulated run, from settings to report: the folder holds what that of `kuber run` holds, but no services."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME
from kuber.experiment.engines import Engine, EngineConfig, open_engine
from kuber.experiment.entity_factory import entity_folder, make_learners
from kuber.experiment.metrics import MetricsRecorder, RoundMetrics
from kuber.experiment.run.runner import RUNTIME_FILE, conclude
from kuber.experiment.run.supervisor import RunProgress
from kuber.experiment.scenario import Scenario, scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.learning.weights import Weights
from kuber.settings import Settings
from kuber.views import RunResult


def run(
    settings: Settings, folder: Path, *, machinery: EngineConfig, watcher: RunProgress, say: Callable[[str], None]
) -> RunResult:
    """Simulate to the end; result, plots and report are written to `folder`, and the last model of each entity."""
    start = time.perf_counter()
    with open_engine(machinery) as machine:  # before data are loaded: it can be refused
        scene, standings = _simulate(settings, folder, machine, watcher, say)
    held_out: dict[str, list[float]] = {}
    for standing in standings:
        held_out.setdefault(str(standing.entity), []).append(standing.evaluation.accuracy)
    for index in range(len(scene.private)):
        if str(index) not in held_out:
            say(f"Entity {index} ended no round, and is left out of the result.")
    return conclude(scene, folder, held_out, wall=time.perf_counter() - start)


def _simulate(
    settings: Settings, folder: Path, machine: Engine, watcher: RunProgress, say: Callable[[str], None]
) -> tuple[Scenario, list[RoundMetrics]]:
    scene = scenario(settings, verify=True, say=say)
    runtime = simulated_runtime(scene)
    (folder / RUNTIME_FILE).write_text(json.dumps(asdict(runtime)) + "\n", encoding="utf-8")

    def keep_round(entity: int, round: int, weights: Weights) -> str | None:
        if round < settings.num_rounds:
            return None
        return Checkpoints(entity_folder(folder, entity)).save_round(round, weights)

    say(f"Everything goes to {folder}.")
    ledger = MetricsRecorder(scene, machine, make_learners(scene, runtime))
    simulation = Simulation(
        scene,
        engine=machine,
        ledger=ledger,
        runtime=runtime,
        watcher=watcher,
        log=folder / FILE_NAME,
        keep_round=keep_round,
    )
    simulation.run()
    return scene, ledger.standings()
