"""`kuber simulate`: the entities of a run without services, on a virtual clock."""

import signal

from kuber import extras
from kuber.cli.compare import SERVICES
from kuber.cli.console import Console
from kuber.cli.executor_options import Engine, GpusPerWorker, RayAddress, Workers, engine_from_flags
from kuber.cli.run import Json, interrupt, show_result
from kuber.cli.run_progress import live_view
from kuber.cli.setting_options import with_settings
from kuber.cli.terminal import say_error
from kuber.settings import Settings


@with_settings(*(name for name in Settings.model_fields if name not in {"threads", *SERVICES}))
def simulate(
    settings: Settings,
    engine: Engine = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    gpus_per_worker: GpusPerWorker = None,
    json: Json = False,
) -> None:
    """Simulate all entities in memory, on a virtual clock. The same seed gives the same bits."""
    extras.require("A simulation", "simulator", "plots")
    choice = engine_from_flags(engine, workers, ray_address, gpus_per_worker)
    from kuber.experiment import run_folder
    from kuber.experiment.simulation import run

    signal.signal(signal.SIGTERM, interrupt)
    folder, settings = run_folder.open_run(settings, None, kind="simulated", echo=say_error)
    with run_folder.at_work(folder), live_view(settings, Console(stderr=True)) as view:
        result = run.run(settings, folder, engine_config=choice, progress=view, echo=view.echo)
    show_result(result, folder, json=json)
