"""What the simulator itself costs: entities that do not train, so that all that is left is moving and deciding.

Every work step goes to a worker and back with the weights it would have had; a task is one local phase of one entity
with its evaluation and its decision. Prints one JSON line.
"""

import argparse
import json
import resource
import tempfile
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kuber.domain.evaluation import Evaluation
from kuber.entity.work import Evaluated, Learnt, Work, train_locally
from kuber.experiment.engines import Engine, engine
from kuber.experiment.entities import make_learners
from kuber.experiment.ledger import Account, Ledger
from kuber.experiment.methods import Unwatched
from kuber.experiment.scenario import scenario
from kuber.experiment.simulator import Simulation, simulated_runtime
from kuber.learning.weights import Weights
from kuber.settings import Settings


def idle(weights: Weights, generator: Any, *, progress: Any) -> Learnt:
    return Learnt(weights=weights, generator=generator, samples=1, forward=0, loss=0.0, seconds=0.0)


class Idle:
    """Sends weights to the workers and back, and evaluates nothing."""

    def __init__(self, engine: Engine, evaluation: Evaluation) -> None:
        self._engine = engine
        self._evaluation = evaluation

    def submit(self, work: Work) -> Future[Any]:
        if work.function is train_locally:
            arguments = {name: work.arguments[name] for name in ("weights", "generator")}
            return self._engine.submit(Work(function=idle, arguments=arguments, cost=1.0))
        future: Future[Any] = Future()
        future.set_result(Evaluated(evaluation=self._evaluation, seconds=0.0))
        return future


class NoLedger(Ledger):
    def end_round(self, entity: int, round: int, models: list[Weights], account: Account, *, time: float) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--strategy", default="vanilla", help="vanilla shares after the first round; local never")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        settings = Settings(
            dataset="digits",
            architecture="mlp",
            strategy=asked.strategy,
            partition="iid",
            batch_size=2,
            num_entities=asked.entities,
            num_rounds=asked.rounds,
            cache_dir=Path(cache),
        )
        scene = scenario(settings)
        scene = replace(scene, common=scene.common.take(np.arange(20)))
        evaluation = Evaluation(test_set=scene.task.test_set, correct=(1,) * 10, total=(10,) * 10)
        runtime = simulated_runtime(scene)
        with engine(asked.workers) as machine:
            if asked.workers:
                machine.submit(Work(function=idle, arguments={"weights": {}, "generator": None}, cost=1.0)).result()
            simulation = Simulation(
                scene,
                engine=Idle(machine, evaluation),
                ledger=NoLedger(scene, machine, make_learners(scene, runtime)),
                runtime=runtime,
                watcher=Unwatched(),
                log=Path(cache) / "events.jsonl",
            )
            start = time.perf_counter()
            simulation.run()
            seconds = time.perf_counter() - start
    tasks = asked.entities * asked.rounds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"tasks": tasks, "seconds": round(seconds, 3), "ms_per_task": round(1000 * seconds / tasks, 3)}
    print(json.dumps(told | {"workers": asked.workers, "peak_rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
