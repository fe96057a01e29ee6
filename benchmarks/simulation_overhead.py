"""Overhead of the simulator: entities that do not train, so that only transfers and decisions remain.

Every local phase goes to a worker, which returns other weights of the same size; in every round, every entity
publishes, and discovers and pulls knowledge of others. Evaluations cost nothing and are invented from the weights. A
task is one local phase of one entity with its evaluations and decisions. Each size runs in a process of its own,
small sizes in several consecutive simulations; the clock starts when workers have imported torch, and entities are
created as they join. Prints a JSON line for each size, then the ratio of the largest to the smallest size: of time,
and of CPU time of the deciding process, which other work on the machine disturbs less.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from idle_work import idle
from tree_memory import TreeMemory, look

from kuber.domain.evaluation import Evaluation
from kuber.domain.query import Query
from kuber.domain.strategies import Vanilla
from kuber.domain.strategy import Method, Situation
from kuber.entity.work.average import AverageResult, average_on_common_set
from kuber.entity.work.steps import EvaluationResult, Work, distil_locally, train_locally
from kuber.experiment.baselines.synchronous import SynchronousEntities
from kuber.experiment.comparison.methods import BASELINES
from kuber.experiment.engines.base import Engine
from kuber.experiment.engines.factory import engine_config, open_engine
from kuber.experiment.entity_factory import make_learners
from kuber.experiment.metrics import Cost, MetricsRecorder
from kuber.experiment.progress import SilentProgress
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.simulation.simulator import Simulation, simulated_runtime
from kuber.experiment.world.conditions import Conditions, World
from kuber.learning.architectures import ARCHITECTURES
from kuber.learning.merging import merge
from kuber.learning.weights import Weights
from kuber.settings import Settings

CLASSES, SAMPLES = 10, 50  # of the invented evaluations: classes, and samples of each


class Idle(torch.nn.Module):
    """A network of a given size."""

    size = 0

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(self.size // 4))


class IdleEngine:
    """Sends weights to the workers and back, and invents evaluations."""

    def __init__(self, engine: Engine, scenario: Scenario) -> None:
        self._engine = engine
        self._test_set = scenario.task.test_set

    def submit(self, work: Work) -> Future[Any]:
        if work.function in (train_locally, distil_locally):
            arguments = {name: work.arguments[name] for name in ("weights", "generator")}
            return self._engine.submit(Work(function=idle, arguments=arguments, cost=1.0))
        future: Future[Any] = Future()
        averaged = work.function is average_on_common_set
        weights = (
            merge(work.arguments["models"], [1.0] * len(work.arguments["models"]))
            if averaged
            else work.arguments["weights"]
        )
        first = next(iter(weights.values())).reshape(-1)[0].item()
        draws = np.random.default_rng(int(abs(first) * (1 << 31)))
        correct = tuple(draws.integers(SAMPLES // 2, SAMPLES, CLASSES).tolist())
        evaluation = Evaluation(test_set=self._test_set, correct=correct, total=(SAMPLES,) * CLASSES)
        if averaged:
            future.set_result(AverageResult(weights=weights, evaluation=evaluation, seconds=0.0))
        else:
            future.set_result(EvaluationResult(evaluation=evaluation, seconds=0.0))
        return future


class NoRecorder(MetricsRecorder):
    """A recorder that evaluates nothing."""

    def end_round(self, entity: int, round: int, models: list[Weights], cost: Cost, **more: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Busy(Vanilla):
    """`vanilla`, but with a publication and a query for better knowledge in every round."""

    def publishes(self, situation: Situation) -> bool:
        return True

    def after(self, situation: Situation) -> tuple[Method, Query] | None:
        return Method.DISTIL, Query(min_accuracy=situation.own.accuracy if situation.own else None, limit=10)


def made(args: argparse.Namespace, cache: Path) -> Scenario:
    """Return a scenario whose entities share the same samples."""
    Idle.size = args.bytes
    ARCHITECTURES["idle"] = Idle
    settings = Settings(
        dataset="digits",
        architecture="idle" if args.bytes else "mlp",
        strategy="local" if args.strategy in BASELINES else args.strategy,
        partition="iid",
        batch_size=2,
        num_entities=10,
        num_rounds=args.rounds,
        cache_dir=cache,
    )
    scenario = load_scenario(settings)
    count = args.entities
    return replace(
        scenario,
        settings=settings.model_copy(update={"num_entities": count}),
        strategy=Busy() if args.strategy == "vanilla" else scenario.strategy,
        private=tuple(scenario.private[index % 10].take(np.arange(4)) for index in range(count)),
        architectures=scenario.architectures[:1] * count,
        world=World(
            entities=tuple(Conditions(speed=speed) for speed in np.random.default_rng(0).uniform(900, 1100, count))
        ),
    )


def simulate(args: argparse.Namespace) -> None:
    """Simulate one size, in this process."""
    config = engine_config(args.engine, workers=args.workers, ray_address=None)
    seconds = cpu = made_in = 0.0
    with tempfile.TemporaryDirectory() as cache, open_engine(config) as engine:
        warm = Work(function=idle, arguments={"weights": {"w": torch.zeros(1)}, "generator": _state()}, cost=1.0)
        for future in [engine.submit(warm) for _ in range(4 * config.parallelism)]:
            future.result()
        before = look(os.getpid())
        with TreeMemory(os.getpid(), seconds=1.0) as memory:  # a sample takes longer with more memory
            for _ in range(args.simulations):
                scenario = made(args, Path(cache))
                runtime = simulated_runtime(scenario)
                recorder = NoRecorder(scenario, engine, make_learners(scenario, runtime))
                idle_engine = IdleEngine(engine, scenario)
                began = time.perf_counter()
                if args.strategy in BASELINES:
                    entities = SynchronousEntities(scenario, runtime, idle_engine, recorder)
                else:
                    options = {"engine": idle_engine, "recorder": recorder, "runtime": runtime}
                    options["log"] = Path(tempfile.mkdtemp(dir=cache)) / "events.jsonl"
                    simulation = Simulation(scenario, progress=SilentProgress(), **options)
                made_in += time.perf_counter() - began
                start, cpu_start = time.perf_counter(), time.process_time()
                if args.strategy in BASELINES:
                    BASELINES[args.strategy](entities)
                else:
                    simulation.run()
                seconds += time.perf_counter() - start
                cpu += time.process_time() - cpu_start
        tasks = args.entities * args.rounds * args.simulations
        result = {"entities": args.entities, "strategy": args.strategy, "engine": config.kind}
        result |= {"ms_per_task": 1000 * seconds / tasks, "cpu_ms_per_task": 1000 * cpu / tasks}
        result |= {"ms_to_make_an_entity": 1000 * made_in / args.entities / args.simulations, "tasks": tasks}
        result |= {"mb_at_start": before[0], "mb_at_most": memory.peak}
        result |= {"anonymous_mb_at_start": before[1], "anonymous_mb_at_most": memory.peak_anonymous}
        if args.strategy not in BASELINES:
            result["mb_of_files"] = simulation.memory.size / 2**20
    print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in result.items()}), flush=True)


def _state() -> torch.Tensor:
    return torch.Generator().get_state()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", default="100", help="comma-separated numbers of entities")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", choices=("inline", "processes", "ray"))
    parser.add_argument("--strategy", default="vanilla", help="kuber, vanilla (queries in every round) or fedavg")
    parser.add_argument("--bytes", type=int, default=0, help="size of the weights (default: the mlp's 204 kB)")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--simulations", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = [int(text) for text in str(args.entities).split(",")]
    if args.simulations:
        args.entities = sizes[0]
        simulate(args)
        return
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(args.turns):
        for size in sizes:
            # Small sizes are simulated several times, because a tenth of a second cannot be measured. More rounds
            # instead would change the weight of joining, and the state that each entity has.
            repeats = max(1, 1000 // (size * args.rounds))
            options = {
                "--entities": size,
                "--rounds": args.rounds,
                "--workers": args.workers,
                "--bytes": args.bytes,
            }
            options |= {"--simulations": repeats}
            options |= {"--strategy": args.strategy} | ({"--engine": args.engine} if args.engine else {})
            command = [sys.executable, __file__, *(str(part) for pair in options.items() for part in pair)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            line = done.stdout.strip().splitlines()[-1]
            print(line, flush=True)
            found[size].append(json.loads(line))
    growth = {}
    for name in ("ms_per_task", "cpu_ms_per_task"):
        best = {size: min(line[name] for line in lines) for size, lines in found.items()}
        growth[name] = best | {"growth": round(best[max(sizes)] / best[min(sizes)], 3)}
    print(json.dumps(growth))


if __name__ == "__main__":
    main()
