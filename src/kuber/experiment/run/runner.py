"""`kuber run`: a hub, an entity process for each entity, and the result."""

from collections.abc import Iterable
from contextlib import ExitStack
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
from kuber.experiment.run_folder import recorded_runtime, write_runtime
from kuber.experiment.scenario import Scenario, load_scenario
from kuber.experiment.world.config import check_real
from kuber.learning.runtime import Runtime, available_cores, choose_runtime
from kuber.settings import Settings
from kuber.views.result import RunResult


def run(settings: Settings, folder: Path, *, progress: RunProgress, echo: Echo, dashboard: bool = False) -> RunResult:
    """Start or resume the run in `folder`; write its result, plots and report there.

    With `dashboard`, web pages show the run until the entities are done. Raises the KUberError that ended the run.
    However it ends, none of its processes is left.
    """
    check_real(settings)
    scenario = load_scenario(settings, verify=True, echo=echo)
    log_path = folder / FILE_NAME
    earlier = [event for event in read_events(log_path) if event.entity is None]
    rewind(log_path, reached=checkpoint_positions(folder, range(settings.num_entities)))
    log = EventLog(log_path, clock=utc_now)
    detail = {"version": __version__, "resumed": bool(earlier)}
    log.append(entity=None, seq=len(earlier), round=0, kind="run-started", detail=detail)
    ending: dict[str, str | None] = {"status": "failed", "message": None}
    try:
        runtime = runtime_for(folder, scenario)
        _run_entities(scenario, folder, runtime, progress, echo, dashboard=dashboard)
        echo("Evaluating every round on the held-out test set.")
        held_out = held_out_accuracies(scenario, folder, runtime, progress.on_evaluation)
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
    from kuber.experiment.reports.conclude import conclude  # loading matplotlib would delay the start by a second

    return conclude(scenario, folder, held_out)


def _run_entities(
    scenario: Scenario, folder: Path, runtime: Runtime, progress: RunProgress, echo: Echo, *, dashboard: bool
) -> None:
    settings = scenario.settings
    ports = {"registry_port": settings.registry_port, "vault_port": settings.vault_port}
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(folder / "hub", host=settings.host, **ports))
        echo(f"The registry is at {hub.registry}, the vault at {hub.vault}. The run folder is {folder}.")
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
    """Return device, precision and threads of a run; chosen once, for all entities."""
    recorded = recorded_runtime(folder)
    if recorded is not None:
        return recorded
    settings = scenario.settings
    runtime = choose_runtime(
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        architecture=scenario.architectures[0],
        batch_size=settings.batch_size,
        entities=settings.num_entities,
    )
    write_runtime(folder, runtime)
    return runtime


def checkpoint_positions(folder: Path, entities: Iterable[int]) -> dict[str, int]:
    """Return entity -> number of the first event after its latest checkpoint."""
    states = {index: Checkpoints(entity_folder(folder, index)).latest() for index in entities}
    return {str(index): state.next_event for index, state in states.items() if state is not None}
