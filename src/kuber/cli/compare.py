"""`kuber compare`: strategies and baselines, measured against training alone."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from kuber import extras
from kuber.cli.console import Console
from kuber.cli.executor_options import Engine, GpusPerWorker, RayAddress, Workers, engine_from_flags
from kuber.cli.run import Json, interrupt
from kuber.cli.setting_options import with_settings
from kuber.cli.terminal import say, say_error
from kuber.errors import SettingsError
from kuber.settings import Settings

Strategies = Annotated[
    str,
    typer.Option(
        "--strategies",
        metavar="NAMES",
        help="Strategies and baselines to compare, separated by commas; local is always included.",
    ),
]
Seeds = Annotated[
    str, typer.Option("--seeds", metavar="N", help="Number of seeds (3: 0, 1, 2), or the seeds themselves (11,12).")
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="FOLDER", help="Folder of an earlier comparison to resume.")
]
SERVICES = {"host", "registry_port", "vault_port"}
NOT_OURS = {"strategy", "seed", "threads", *SERVICES}


@with_settings(*(name for name in Settings.model_fields if name not in NOT_OURS))
def compare(
    settings: Settings | None,
    strategies: Strategies = "local,kuber,fedavg,central",
    seeds: Seeds = "3",
    engine: Engine = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    gpus_per_worker: GpusPerWorker = None,
    json: Json = False,
    resume: Resume = None,
) -> None:
    """Compare strategies and baselines over several seeds. All start from the same partitions and weights."""
    extras.require("A comparison", "simulator", "plots")
    choice = engine_from_flags(engine, workers, ray_address, gpus_per_worker)
    from kuber.cli.compare_progress import comparison_lines, progress, section_table
    from kuber.experiment import run_folder
    from kuber.experiment.comparison import compare

    signal.signal(signal.SIGTERM, interrupt)
    plan = None
    if settings is not None:
        names = [name.strip() for name in strategies.split(",") if name.strip()]
        plan = compare.make_plan(settings, names, parse_seeds(seeds))
    folder, plan = compare.open_comparison(plan, resume, echo=say_error)
    errors = Console(stderr=True)
    try:
        with run_folder.at_work(folder), progress(errors) as shown:
            shown.echo(f"The folder of the comparison is {folder}.")
            done = compare.compare(plan, folder, engine_config=choice, progress=shown, echo=shown.echo)
    except KeyboardInterrupt:
        errors.print(f"Interrupted. Resume with: kuber compare --resume {folder}", soft_wrap=True, highlight=False)
        raise
    if json:
        print(done.to_json())
        return
    output = Console()
    if output.is_terminal:
        for section in done.sections:
            output.print(section_table(section))
            output.print()
    else:
        for line in comparison_lines(done):
            say(line)
    say(f"Rows: {folder / compare.ROWS_FILE}   Report: {folder / compare.REPORT_FILE}")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that a count (`3`: 0, 1, 2) or a list (`11,12`) means. Raises SettingsError for other text."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or any(not 0 <= number < 2**32 for number in numbers) or ("," not in text and numbers == [0]):
        raise SettingsError(f"--seeds takes a count (3) or whole numbers separated by commas (11,12), not {text!r}.")
    return numbers if "," in text else list(range(numbers[0]))
