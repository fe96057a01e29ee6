"""`kuber compare`: methods on the same partitions, seeds and initial weights; resumable."""

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
from kuber.experiment.baselines.synchronous import check_synchronous
from kuber.experiment.comparison.methods import BASELINES, perform
from kuber.experiment.comparison.statistics import flat, result_row, summaries
from kuber.experiment.engines.base import Engine
from kuber.experiment.engines.factory import EngineConfig, open_engine
from kuber.experiment.engines.result_cache import ResultCache
from kuber.experiment.reports.comparison_report import write_comparison_report
from kuber.experiment.run_folder import new_folder, settings_of, within_dataset
from kuber.experiment.scenario import load_scenario
from kuber.files import write_atomically
from kuber.settings import Settings
from kuber.views.comparison import FLOOR, PUBLIC, ComparisonResult, ResultRow
from kuber.views.result import parsed
from kuber.views.run_index import PLAN_FILE, RESULT_FILE

ROWS_FILE = "rows.csv"
PLOT_FILE = "comparison.png"
REPORT_FILE = "report.html"
CACHE_FOLDER = "work"
TASKS_FOLDER = "tasks"
COMPUTE_MARGIN = 1.01  # a method that costs more than this times `local` is also compared with a longer `local`

_EXTRA_TASKS = 2  # beyond the number of workers: while one waits for its slowest entity, others have work


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The methods and seeds of a comparison, and their common settings."""

    settings: Settings
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonTask:
    """One method on one seed; `label` distinguishes a longer `local` from the plain one."""

    label: str
    method: str
    seed: int
    rounds: int


class ComparisonProgress(Protocol):
    """Shows a comparison while it is under way."""

    def on_tasks(self, tasks: Sequence[ComparisonTask], entities: int) -> None: ...

    def on_round(self, task: ComparisonTask) -> None: ...

    def on_row(self, task: ComparisonTask, row: ResultRow) -> None: ...


def make_plan(settings: Settings, strategies: Sequence[str], seeds: Sequence[int]) -> Plan:
    """Check a plan. `local` is added if it is missing, because the others are measured against it.

    Raises SettingsError if a method is unknown, a seed is given twice, or a method lacks its public data set.
    """
    known = [*strategy_names(), *BASELINES]
    unknown = [name for name in strategies if name not in known and ":" not in name]
    if unknown:
        raise SettingsError(f"There is no strategy {unknown[0]!r}; choose from: {', '.join(known)}.")
    if len(set(seeds)) != len(seeds) or not seeds:
        raise SettingsError("A comparison needs at least one seed, and each seed only once.")
    public = PUBLIC.intersection(strategies)
    if public and settings.public_dataset is None:
        raise SettingsError(f"{min(public)} needs a public data set; give one with --public-dataset.")
    return Plan(settings=settings, strategies=tuple(dict.fromkeys([FLOOR, *strategies])), seeds=tuple(seeds))


def open_comparison(plan: Plan | None, resume: Path | None, *, echo: Echo = lambda _: None) -> tuple[Path, Plan]:
    """Return the folder and the plan of a new comparison, or of the earlier comparison to resume.

    Raises SettingsError if the folder cannot be created, or is not that of a comparison.
    """
    if resume is None:
        assert plan is not None
        plan = replace(plan, settings=within_dataset(plan.settings, echo))
        folder = new_folder(plan.settings, "compare")
        content = {"strategies": plan.strategies, "seeds": plan.seeds}
        write_atomically(folder / PLAN_FILE, f"{json.dumps(content)}\n".encode(), durable=False)
        return folder, plan
    settings = settings_of(resume)
    try:
        content = json.loads((resume / PLAN_FILE).read_bytes())
        return resume.resolve(), make_plan(settings, content["strategies"], content["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SettingsError(f"{resume} is not the folder of a comparison: it has no readable {PLAN_FILE}.") from None


def stored_row(path: Path) -> ResultRow | None:
    """Return the row of a method that has been run; None if it has not. Raises SettingsError for a damaged file."""
    try:
        return parsed(ResultRow, path.read_bytes(), what="the row of a method")
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except ValueError:
        reason = "it holds no row"
    raise SettingsError(f"{path} cannot be used: {reason}. Remove it, and the method is run again.")


def compare(
    plan: Plan, folder: Path, *, engine_config: EngineConfig, progress: ComparisonProgress, echo: Echo
) -> ComparisonResult:
    """Start or resume the comparison in `folder`; write its tables, plot and report there.

    The numbers depend neither on interruptions nor on the number of workers.
    """
    # matplotlib would delay the start by a second
    from kuber.experiment.reports.comparison_plot import comparison_plot

    rounds = plan.settings.num_rounds
    tasks = [
        ComparisonTask(label=name, method=name, seed=seed, rounds=rounds)
        for seed in plan.seeds
        for name in plan.strategies
    ]
    with open_engine(engine_config) as engine:  # before the data are loaded: it may be refused
        scenario = load_scenario(plan.settings.model_copy(update={"seed": plan.seeds[0]}), verify=True, echo=echo)
        if not BASELINES.keys().isdisjoint(plan.strategies):
            check_synchronous(scenario)  # before a method is executed
        cache = ResultCache(engine, folder / CACHE_FOLDER)
        executor = _Executor(plan, folder, cache, progress, engine_config.parallelism)
        rows = executor.run(tasks)
        rows += executor.run(_longer_local(rows, rounds))
    names = list(dict.fromkeys([*plan.strategies, *(row.strategy for row in rows)]))
    rows.sort(key=lambda row: (names.index(row.strategy), row.seed))
    result = ComparisonResult(
        settings=scenario.settings.model_copy(update={"seed": plan.settings.seed}).model_dump(mode="json"),
        strategies=plan.strategies,
        seeds=plan.seeds,
        rounds=rounds,
        rows=tuple(rows),
        summary=tuple(summaries(rows)),
    )
    write_atomically(folder / RESULT_FILE, f"{result.to_json()}\n".encode(), durable=False)
    with (folder / ROWS_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat(rows[0])))
        writer.writeheader()
        writer.writerows(map(flat, rows))
    plot = comparison_plot(rows)
    (folder / PLOT_FILE).write_bytes(plot)
    write_comparison_report(folder / REPORT_FILE, result, plot)
    shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
    return result


@dataclass(frozen=True, slots=True)
class _Executor:
    """Executes tasks, several at a time, on one engine."""

    plan: Plan
    folder: Path
    engine: Engine
    progress: ComparisonProgress
    workers: int

    def run(self, tasks: Sequence[ComparisonTask]) -> list[ResultRow]:
        """Return the row of every task; rows that an earlier session completed are read from their files."""
        self.progress.on_tasks(tasks, self.plan.settings.num_entities)
        # `central` has sequential work steps only: started last, it would leave the other workers idle.
        seeds = self.plan.seeds
        ordered = sorted(tasks, key=lambda task: (seeds.index(task.seed), task.method != "central"))
        threads = ThreadPoolExecutor(max(1, self.workers + _EXTRA_TASKS))
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
        row = stored_row(path)
        if row is None:
            row = self._perform(task)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, f"{json.dumps(asdict(row))}\n".encode(), durable=False)
        self.progress.on_row(task, row)
        return row

    def _perform(self, task: ComparisonTask) -> ResultRow:
        changes: dict[str, Any] = {"seed": task.seed, "num_rounds": task.rounds}
        if task.method not in BASELINES:
            changes["strategy"] = task.method
        scenario = load_scenario(self.plan.settings.model_copy(update=changes))
        done = perform(task.method, scenario, engine=self.engine, on_round=lambda: self.progress.on_round(task))
        counts = [scenario.class_counts(index) for index in range(len(scenario.private))]
        return result_row(task.label, task.seed, done.metrics, done.deliveries, counts)


def _longer_local(rows: Sequence[ResultRow], rounds: int) -> list[ComparisonTask]:
    """Return, for every method that costs more than `local`, `local` with as many rounds as cost the same.

    Rounds are rounded up, in favour of `local`. At a constant learning rate the first ones are those of the plain
    `local`, and cached.
    """
    floor = {row.seed: row for row in rows if row.strategy == FLOOR}
    return [
        ComparisonTask(
            label=f"{FLOOR}@{row.strategy}",
            method=FLOOR,
            seed=row.seed,
            rounds=rounds + ceil((row.compute - floor[row.seed].compute) / _round_compute(floor[row.seed]) - 1e-9),
        )
        for row in rows
        if row.compute > COMPUTE_MARGIN * floor[row.seed].compute
    ]


def _round_compute(row: ResultRow) -> float:
    """Return the compute of one more round; the last one, after which personal heads are trained, costs more."""
    *before, last = (0.0, *(point.compute for point in row.curve))
    return before[-1] - before[-2] if len(before) > 1 else last
