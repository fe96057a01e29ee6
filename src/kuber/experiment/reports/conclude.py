"""The conclusion of a run: its result, plots and report, written to the run folder."""

from pathlib import Path

from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.experiment.reports.lineage_plot import lineage_plot
from kuber.experiment.reports.plots import accuracy_plot, partition_plot
from kuber.experiment.reports.run_report import write_report
from kuber.experiment.reports.world_plot import world_plot
from kuber.experiment.run_result import HeldOutAccuracy, active_seconds, result_of
from kuber.experiment.scenario import Scenario
from kuber.files import write_atomically
from kuber.views.result import RunResult
from kuber.views.run import RunView
from kuber.views.run_index import RESULT_FILE

REPORT_FILE = "report.html"


def conclude(
    scenario: Scenario, folder: Path, held_out: dict[str, list[HeldOutAccuracy]], *, wall: float | None = None
) -> RunResult:
    """Compute the result from the event log and the held-out accuracies; write it with its plots and report.

    `wall` are the active seconds, by default those of the log.
    """
    settings = scenario.settings
    events = read_events(folder / FILE_NAME)
    view = RunView.of(events, rounds=settings.num_rounds)
    groups = None
    if settings.world is not None:
        groups = {str(index): conditions.group for index, conditions in enumerate(scenario.world.entities)}
    wall = active_seconds(events) if wall is None else wall
    result = result_of(view, held_out, run_dir=str(folder), settings=settings, wall=wall, groups=groups)
    counts = {str(index): scenario.class_counts(index) for index in range(len(scenario.private))}
    plots = {
        "accuracy": accuracy_plot(result, view),
        **_own_plot(result, view),
        "partition": partition_plot(scenario.task.labels, counts),
        "lineage": lineage_plot(view),
    }
    if groups is not None:
        plots["world"] = world_plot(result)
    for name, image in plots.items():
        (folder / f"{name}.png").write_bytes(image)
    write_atomically(folder / RESULT_FILE, f"{result.to_json()}\n".encode(), durable=False)
    write_report(folder / REPORT_FILE, result, view, plots, settings.model_dump(mode="json"), scenario.task.labels)
    return result


def _own_plot(result: RunResult, view: RunView) -> dict[str, bytes]:
    own = result.of_own_mixtures
    return {} if own is None else {"own_accuracy": accuracy_plot(own, view, mixture="own mixture")}
