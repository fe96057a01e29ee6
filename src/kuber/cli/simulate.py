"""`kuber simulate`: a scenario without services, on a virtual clock."""

import signal

from rich.console import Console

from kuber.cli.compare import SERVICES
from kuber.cli.live import live_view
from kuber.cli.machinery import Engine, GpusPerWorker, RayAddress, Workers, machinery
from kuber.cli.options import with_settings
from kuber.cli.run import Json, interrupt, show_result
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
    """Run every entity on ports in memory and a virtual clock; the same seed gives the same bits."""
    choice = machinery(engine, workers, ray_address, gpus_per_worker)
    from kuber.experiment import folders, simulated

    signal.signal(signal.SIGTERM, interrupt)
    folder = folders.new_folder(settings, settings.strategy, f"seed{settings.seed}", "simulated")
    with folders.at_work(folder), live_view(settings, Console(stderr=True)) as view:
        result = simulated.run(settings, folder, machinery=choice, watcher=view, say=view.say)
    show_result(result, folder, json=json)
