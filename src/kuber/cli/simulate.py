"""`kuber simulate`: a scenario without services, on a virtual clock."""

import signal

from rich.console import Console

from kuber.cli.compare import SERVICES, Workers
from kuber.cli.live import live_view
from kuber.cli.options import with_settings
from kuber.cli.run import Json, interrupt, show_result
from kuber.settings import Settings


@with_settings(*(name for name in Settings.model_fields if name not in {"threads", *SERVICES}))
def simulate(settings: Settings, workers: Workers = None, json: Json = False) -> None:
    """Run every entity on ports in memory and a virtual clock; the same seed gives the same bits."""
    from kuber.experiment import folders, forks

    forks.warm_up()
    from kuber.experiment import simulated  # torch: while the fork server imports it too
    from kuber.learning.runtime import available_cores

    signal.signal(signal.SIGTERM, interrupt)
    folder = folders.new_folder(settings, settings.strategy, f"seed{settings.seed}", "simulated")
    count = available_cores() if workers is None else workers
    with folders.at_work(folder), live_view(settings, Console(stderr=True)) as view:
        result = simulated.run(settings, folder, workers=count, watcher=view, say=view.say)
    show_result(result, folder, json=json)
