"""`kuber run`: the whole system on one machine."""

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from kuber import extras
from kuber.cli.console import Console
from kuber.cli.result_table import groups_table, result_table, summary_lines
from kuber.cli.run_progress import live_view
from kuber.cli.setting_options import with_settings
from kuber.cli.terminal import say, say_error
from kuber.settings import Settings
from kuber.views.result import RunResult

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="RUN_DIR", help="Folder of an earlier run to resume.")
]
Dashboard = Annotated[bool, typer.Option("--dashboard", help="Serve web pages that show the run live.")]


@with_settings()
def run(settings: Settings | None, json: Json = False, resume: Resume = None, dashboard: Dashboard = False) -> None:
    """Run registry, vault and all entities on this machine."""
    extras.require("A run", "hub", "plots")
    if dashboard:
        extras.require("The dashboard", "dashboard")
    from kuber.experiment import run_folder
    from kuber.experiment.engines import fork_server

    folder, settings = run_folder.open_run(settings, resume, echo=say_error)
    signal.signal(signal.SIGTERM, interrupt)
    errors = Console(stderr=True)
    try:
        with run_folder.at_work(folder):
            fork_server.warm_up()
            from kuber.experiment.run import runner  # torch: while the fork server imports it too

            with live_view(settings, errors) as view:
                result = runner.run(settings, folder, progress=view, echo=view.echo, dashboard=dashboard)
    except KeyboardInterrupt:
        errors.print(f"Interrupted. Resume with: kuber run --resume {folder}", soft_wrap=True, highlight=False)
        raise
    show_result(result, folder, json=json)


def show_result(result: RunResult, folder: Path, *, json: bool) -> None:
    """Print a result to standard output: as JSON, a table, or plain lines."""
    if json:
        print(result.to_json())
        return
    output = Console()
    if output.is_terminal:
        output.print(result_table(result))
        groups = groups_table(result)
        if groups is not None:
            output.print(groups)
    else:
        for line in summary_lines(result):
            say(line)
    say(f"Report: {folder / 'report.html'}")


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt
