"""`kuber compare`: every method on the same partitions, seeds and initial weights, in one folder."""

import csv
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from kuber.data.datasets import Echo
from kuber.entity.strategy_loader import strategy_names
from kuber.errors import SettingsError
from kuber.experiment.baselines.synchronous import check_in_step
from kuber.experiment.comparison.methods import BASELINES, perform
from kuber.experiment.comparison.statistics import flat, row, summaries
from kuber.experiment.engines import Engine, EngineConfig, open_engine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.reports.comparison_report import write_comparison_report
from kuber.experiment.run_folder import new_folder, settings_of, within_dataset
from kuber.experiment.scenario import load_scenario
from kuber.files import write_atomically
from kuber.settings import Settings
from kuber.views import FLOOR, PLAN_FILE, PUBLIC, RESULT_FILE, ComparisonResult, ResultRow, parsed

ROWS_FILE = "rows.csv"
PLOT_FILE = "comparison.png"
REPORT_FILE = "report.html"
MEMO_FOLDER = "work"
TASKS_FOLDER = "tasks"
COMPUTE_MARGIN = 1.01  # a method that costs more than this times `local` is also compared with a longer `local`

_IN_FLIGHT = 2  # tasks more than workers: while one waits for its slowest entity, others have work


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is compared: methods and seeds, on these settings."""

    settings: Settings
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonTask:
    """One method on one seed; `label` tells a longer `local` from the plain one."""

    label: str
    method: str
    seed: int
    rounds: int


class ComparisonProgress(Protocol):
    """Who is shown a comparison while it goes on."""

    def on_tasks(self, tasks: Sequence[ComparisonTask], entities: int) -> None: ...

    def on_round(self, task: ComparisonTask) -> None: ...

    def on_row(self, task: ComparisonTask, row: ResultRow) -> None: ...


def make_plan(settings: Settings, strategies: Sequence[str], seeds: Sequence[int]) -> Plan:
    """A plan that can be carried out. `local` is added where it is missing: the others are measured against it.

    Raises SettingsError when a method is unknown, a seed is named twice, or a public set is wanted but not named.
    """
    known = [*strategy_names(), *BASELINES]
    unknown = [name for name in strategies if name not in known and ":" not in name]
    if unknown:
        raise SettingsError(f"There is no strategy {unknown[0]!r}; choose from: {', '.join(known)}.")
    if len(set(seeds)) != len(seeds) or not seeds:
        raise SettingsError("A comparison needs at least one seed, and none of them twice.")
    public = PUBLIC.intersection(strategies)
    if public and settings.public_dataset is None:
        raise SettingsError(f"{min(public)} needs a public set that all entities know; name one: --public-dataset.")
    return Plan(settings=settings, strategies=tuple(dict.fromkeys([FLOOR, *strategies])), seeds=tuple(seeds))


def open_comparison(plan: Plan | None, resume: Path | None, *, echo: Echo = lambda _: None) -> tuple[Path, Plan]:
    """Return the folder and the plan of a new comparison, or of the earlier comparison to resume."""
    if resume is None:
        assert plan is not None
        plan = replace(plan, settings=within_dataset(plan.settings, echo))
        folder = new_folder(plan.settings, "compare")
        told = {"strategies": plan.strategies, "seeds": plan.seeds}
        write_atomically(folder / PLAN_FILE, f"{json.dumps(told)}\n".encode(), durable=False)
        return folder, plan
    settings = settings_of(resume)
    try:
        told = json.loads((resume / PLAN_FILE).read_bytes())
        return resume.resolve(), make_plan(settings, told["strategies"], told["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(f"{resume} is not the folder of a comparison: it has no readable {PLAN_FILE}.") from None


def compare(
    plan: Plan,
    folder: Path,
    *,
    engine_config: EngineConfig,
    progress: ComparisonProgress,
    echo: Echo,
) -> ComparisonResult:
    """Start the comparison in `folder`, or go on with it, to its end; tables and plot are written there.

    However often it was killed, and with any number of workers, it ends with the same numbers.
    """
    from kuber.experiment.reports.comparison_plot import comparison_plot  # a second that the start can do without

    rounds = plan.settings.num_rounds
    tasks = [
        ComparisonTask(label=name, method=name, seed=seed, rounds=rounds)
        for seed in plan.seeds
        for name in plan.strategies
    ]
    with open_engine(engine_config) as engine:  # before data are loaded: it can be refused
        scenario = load_scenario(plan.settings.model_copy(update={"seed": plan.seeds[0]}), verify=True, echo=echo)
        if not BASELINES.keys().isdisjoint(plan.strategies):
            check_in_step(scenario)  # before anything is played
        memo = ResultCache(engine, folder / MEMO_FOLDER)
        stage = _Stage(plan, folder, memo, progress, engine_config.parallelism)
        rows = stage.play(tasks)
        rows += stage.play(_longer(rows, rounds))
    names = list(dict.fromkeys([*plan.strategies, *(one.strategy for one in rows)]))
    rows.sort(key=lambda one: (names.index(one.strategy), one.seed))
    done = ComparisonResult(
        settings=scenario.settings.model_copy(update={"seed": plan.settings.seed}).model_dump(mode="json"),
        strategies=plan.strategies,
        seeds=plan.seeds,
        rounds=rounds,
        rows=tuple(rows),
        summary=tuple(summaries(rows)),
    )
    write_atomically(folder / RESULT_FILE, f"{done.to_json()}\n".encode(), durable=False)
    _write_csv(folder / ROWS_FILE, rows)
    plot = comparison_plot(rows)
    (folder / PLOT_FILE).write_bytes(plot)
    write_comparison_report(folder / REPORT_FILE, done, plot)
    shutil.rmtree(folder / MEMO_FOLDER, ignore_errors=True)
    return done


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where tasks are played: several at a time, on one engine."""

    plan: Plan
    folder: Path
    engine: Engine
    progress: ComparisonProgress
    workers: int

    def play(self, tasks: Sequence[ComparisonTask]) -> list[ResultRow]:
        """The row of every task; those that an earlier session ended are read from their files."""
        self.progress.on_tasks(tasks, self.plan.settings.num_entities)
        # `central` has one work step after another: begun last, it would leave the other workers idle.
        seeds = self.plan.seeds
        ordered = sorted(tasks, key=lambda task: (seeds.index(task.seed), task.method != "central"))
        threads = ThreadPoolExecutor(max(1, self.workers + _IN_FLIGHT))
        futures: list[Future[ResultRow]] = []
        try:
            futures = [threads.submit(self._row, task) for task in ordered]
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
            return [future.result() for future in futures]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _row(self, task: ComparisonTask) -> ResultRow:
        path = self.folder / TASKS_FOLDER / f"{task.label}-seed{task.seed}.json"
        if path.exists():
            found = parsed(ResultRow, path.read_bytes(), what="the row of a method")
        else:
            found = self._perform(task)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, f"{json.dumps(asdict(found))}\n".encode(), durable=False)
        self.progress.on_row(task, found)
        return found

    def _perform(self, task: ComparisonTask) -> ResultRow:
        changes: dict[str, Any] = {"seed": task.seed, "num_rounds": task.rounds}
        if task.method not in BASELINES:
            changes["strategy"] = task.method
        scenario = load_scenario(self.plan.settings.model_copy(update=changes))
        done = perform(task.method, scenario, engine=self.engine, on_round=lambda: self.progress.on_round(task))
        counts = [scenario.class_counts(index) for index in range(len(scenario.private))]
        return row(task.label, task.seed, done.metrics, done.deliveries, counts)


def _longer(rows: Sequence[ResultRow], rounds: int) -> list[ComparisonTask]:
    """For every method with more compute than `local`: `local` for as many rounds as that compute pays for.

    Rounded up, in favour of `local`. Its first rounds are those of the plain `local`, and not computed again.
    """
    floor = {one.seed: one.compute for one in rows if one.strategy == FLOOR}
    return [
        ComparisonTask(
            label=f"{FLOOR}@{one.strategy}",
            method=FLOOR,
            seed=one.seed,
            rounds=ceil(rounds * one.compute / floor[one.seed] - 1e-9),
        )
        for one in rows
        if one.compute > COMPUTE_MARGIN * floor[one.seed]
    ]


def _write_csv(path: Path, rows: Sequence[ResultRow]) -> None:
    lines = [flat(one) for one in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
