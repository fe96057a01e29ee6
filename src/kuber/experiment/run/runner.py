"""`kuber run`: both services, every entity in a process of its own, and the result."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from kuber import __version__
from kuber.data.datasets import Echo
from kuber.domain.auth import OPERATOR_TOKEN_FILE
from kuber.domain.event import utc_now
from kuber.entity.state.checkpoint import Checkpoints
from kuber.entity.state.event_log import FILE_NAME, EventLog, EventTail, read_events, rewind
from kuber.errors import KUberError
from kuber.experiment.entity_factory import entity_folder
from kuber.experiment.held_out import held_out_accuracies
from kuber.experiment.progress import RunProgress
from kuber.experiment.run.entity_process import EntityJob
from kuber.experiment.run.hub_processes import running_dashboard, running_hub
from kuber.experiment.run.supervisor import EntitySupervisor
from kuber.experiment.run_result import result_of, wall_seconds
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.world.config import check_real
from kuber.files import write_atomically
from kuber.learning.runtime import Runtime, available_cores, choose_runtime
from kuber.settings import Settings
from kuber.views import RESULT_FILE, RunResult, RunView

RUNTIME_FILE = "runtime.json"
REPORT_FILE = "report.html"


def run(settings: Settings, folder: Path, *, progress: RunProgress, echo: Echo, dashboard: bool = False) -> RunResult:
    """Start the run in `folder`, or go on with it, to its end; its result, plots and report are written there.

    With `dashboard`, web pages show it until the entities are done.

    Raises the KUberError that ended it early. Whatever ends it, no process of the run is left.
    """
    check_real(settings)
    scenario = load_scenario(settings, verify=True, echo=echo)
    log_path = folder / FILE_NAME
    earlier = [event for event in read_events(log_path) if event.entity is None]
    rewind(log_path, reached=reached(folder, range(settings.num_entities)))
    log = EventLog(log_path, clock=utc_now)
    detail = {"version": __version__, "resumed": bool(earlier)}
    log.append(entity=None, seq=len(earlier), round=0, kind="run-started", detail=detail)
    ending: dict[str, str | None] = {"status": "failed", "message": None}
    try:
        runtime = runtime_for(folder, scenario)
        _live_together(scenario, folder, runtime, progress, echo, dashboard=dashboard)
        echo("Evaluating every round on the held-out test set.")
        held_out = held_out_accuracies(scenario, folder, runtime)
        ending = {"status": "completed", "message": None}
    except KeyboardInterrupt:
        ending = {"status": "interrupted", "message": None}
        raise
    except KUberError as error:
        ending = {"status": "failed", "message": error.message}
        raise
    finally:
        log.append(entity=None, seq=len(earlier) + 1, round=0, kind="run-ended", detail=ending)
        log.close()
    return conclude(scenario, folder, held_out, wall=wall_seconds(read_events(log_path)))


def _live_together(
    scenario: Scenario,
    folder: Path,
    runtime: Runtime,
    progress: RunProgress,
    echo: Echo,
    *,
    dashboard: bool,
) -> None:
    settings = scenario.settings
    ports = {"registry_port": settings.registry_port, "vault_port": settings.vault_port}
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(folder / "hub", host=settings.host, **ports))
        echo(f"The registry is at {hub.registry}, the vault at {hub.vault}; everything goes to {folder}.")
        jobs = [
            EntityJob(
                settings=settings,
                index=index,
                folder=folder,
                registry=hub.registry,
                vault=hub.vault,
                invitation=hub.invitation(str(index), entity_folder(folder, index)),
                runtime=runtime,
            )
            for index in range(settings.num_entities)
        ]
        if dashboard:
            token, log = folder / "hub" / "registry" / OPERATOR_TOKEN_FILE, folder / "hub" / "dashboard.log"
            pages = running_dashboard(hub, token=token, runs=folder.parent, log=log, echo=echo)
            stack.enter_context(pages)
        slots = max(1, available_cores() // runtime.threads)
        EntitySupervisor(jobs, slots=slots, hub=hub, tail=EventTail(folder / FILE_NAME), progress=progress).run()


def runtime_for(folder: Path, scenario: Scenario) -> Runtime:
    """Device, precision and threads, chosen once in the life of a run, for all entities alike."""
    path = folder / RUNTIME_FILE
    if path.exists():
        return Runtime(**json.loads(path.read_text(encoding="utf-8")))
    settings = scenario.settings
    runtime = choose_runtime(
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        architecture=scenario.architectures[0],
        batch_size=settings.batch_size,
        entities=settings.num_entities,
    )
    path.write_text(json.dumps(asdict(runtime)) + "\n", encoding="utf-8")
    return runtime


def reached(folder: Path, entities: Iterable[int]) -> dict[str, int]:
    """The event that each entity's checkpoint goes on with."""
    states = {index: Checkpoints(entity_folder(folder, index)).latest() for index in entities}
    return {str(index): state.seq for index, state in states.items() if state is not None}


def conclude(scenario: Scenario, folder: Path, held_out: dict[str, list[float]], *, wall: float) -> RunResult:
    """The result, from the event log and the held-out accuracies; written with its plots and its report.

    `wall` is the seconds at work.
    """
    from kuber.experiment.reports.lineage_plot import lineage_plot  # a second that the start can do without
    from kuber.experiment.reports.plots import accuracy_plot, partition_plot
    from kuber.experiment.reports.run_report import write_report
    from kuber.experiment.reports.world_plot import world_plot

    settings = scenario.settings
    events = read_events(folder / FILE_NAME)
    view = RunView.of(events, rounds=settings.num_rounds)
    groups = None
    if settings.world is not None:
        groups = {str(index): one.group for index, one in enumerate(scenario.world.entities)}
    result = result_of(view, held_out, run_dir=str(folder), settings=settings, wall=wall, groups=groups)
    counts = {str(index): scenario.class_counts(index) for index in range(len(scenario.private))}
    plots = {
        "accuracy": accuracy_plot(result, view),
        "partition": partition_plot(scenario.task.labels, counts),
        "lineage": lineage_plot(view),
    }
    if groups is not None:
        plots["world"] = world_plot(result)
    for name, picture in plots.items():
        (folder / f"{name}.png").write_bytes(picture)
    write_atomically(folder / RESULT_FILE, f"{result.to_json()}\n".encode(), durable=False)
    write_report(folder / REPORT_FILE, result, view, plots, settings.model_dump(mode="json"), scenario.task.labels)
    return result
