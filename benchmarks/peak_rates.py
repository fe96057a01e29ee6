"""Accuracy of each method at several peak learning rates, to choose the rates of the presets.

python benchmarks/peak_rates.py --methods local kuber fedavg --rates 0.02 0.04 0.08

Seeds 6 and 7 by default, which no table reports: a rate chosen on reported seeds would flatter. The work is that of
`kuber compare`, without the longer `local`. Prints a table of general and own accuracy after the last round. Started
again with the same --folder, it resumes; more rates, methods and seeds can be added, and other settings do not mix.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from kuber.entity.strategy_loader import strategy_names
from kuber.errors import DivergedError
from kuber.experiment.comparison.methods import BASELINES, perform
from kuber.experiment.comparison.statistics import result_row
from kuber.experiment.engines.base import Engine
from kuber.experiment.engines.factory import engine_config, open_engine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.scenario import load_scenario
from kuber.files import write_atomically
from kuber.settings import load

EXTRA_TASKS = 2  # beyond the number of workers: while one waits for its slowest entity, others have work
Accuracies = dict[str, float | None]  # "general" and "own", 0 to 1; None where the training diverged


@dataclass(frozen=True)
class Task:
    """One method at one rate on one seed."""

    method: str
    rate: float
    seed: int


def accuracies(task: Task, flags: dict[str, Any], preset: str, folder: Path, engine: Engine) -> Accuracies:
    """Return the accuracies of a task, stored or computed now."""
    changes = {"learning_rate": task.rate, "seed": task.seed}
    if task.method not in BASELINES:
        changes["strategy"] = task.method
    settings = load(flags | changes, preset=preset)
    folders = {"runs_dir", "cache_dir", "data_dir"}
    identity = json.dumps([task.method, settings.model_dump(mode="json", exclude=folders)])
    path = folder / f"{sha256(identity.encode()).hexdigest()[:16]}.json"
    if path.exists():
        found: Accuracies = json.loads(path.read_bytes())["accuracies"]
        return found
    scenario = load_scenario(settings)
    try:
        done = perform(task.method, scenario, engine=engine)
    except DivergedError:
        found = {"general": None, "own": None}
    else:
        counts = [scenario.class_counts(index) for index in range(len(scenario.private))]
        row = result_row(task.method, task.seed, done.metrics, done.deliveries, counts)
        found = {"general": row.mean_accuracy, "own": row.own_accuracy}
    content = {"method": task.method, "rate": task.rate, "seed": task.seed, "accuracies": found}
    write_atomically(path, f"{json.dumps(content)}\n".encode(), durable=False)
    return found


def cell(values: Sequence[float | None]) -> str:
    """Return the mean in per cent, and in brackets the value of each seed."""
    each = ", ".join("diverged" if value is None else f"{100 * value:.1f}" for value in values)
    known = [value for value in values if value is not None]
    return f"{100 * fmean(known):.1f} ({each})" if len(known) == len(values) else each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/peak-rates"))
    parser.add_argument("--preset", default="study")
    parser.add_argument("--methods", nargs="+", default=["local", "kuber", "fedavg", "central"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.01, 0.02, 0.04, 0.08])
    parser.add_argument("--seeds", nargs="+", type=int, default=[6, 7])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings")
    args = parser.parse_args()
    if unknown := set(args.methods) - {*strategy_names(), *BASELINES}:
        parser.error(f"no method {', '.join(sorted(unknown))}")
    flags = {"learning_rate_schedule": "cosine"} | dict(given.split("=", 1) for given in args.set)
    tasks = [Task(method, rate, seed) for seed in args.seeds for method in args.methods for rate in args.rates]
    args.folder.mkdir(parents=True, exist_ok=True)
    config = engine_config(workers=args.workers)
    with open_engine(config) as inner, ThreadPoolExecutor(config.parallelism + EXTRA_TASKS) as threads:
        engine = ResultCache(inner, args.folder / "work")

        def done(task: Task) -> Accuracies:
            found = accuracies(task, flags, args.preset, args.folder, engine)
            print(json.dumps(vars(task) | found), flush=True)
            return found

        results = dict(zip(tasks, threads.map(done, tasks), strict=True))
    shutil.rmtree(args.folder / "work", ignore_errors=True)
    print("\n| method | peak rate | general | own |\n| --- | --- | --- | --- |")
    for method in args.methods:
        for rate in args.rates:
            found = [results[Task(method, rate, seed)] for seed in args.seeds]
            general, own = (cell([each[kind] for each in found]) for kind in ("general", "own"))
            print(f"| `{method}` | {rate:g} | {general} | {own} |")


if __name__ == "__main__":
    main()
