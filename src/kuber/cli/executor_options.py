"""Which engine does the work of a simulation or a comparison: their common options."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kuber.experiment.engines import EngineConfig

Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="inline|processes|ray",
        help="Where work is done: in this process, in worker processes, or as tasks of a Ray cluster.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Worker processes; 0: none but this one (default: one a core)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", metavar="HOST:PORT", help="A Ray cluster to use; else one is started here."),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option("--gpus-per-worker", metavar="X", help="GPUs that each work step has on a Ray cluster, as 0.5."),
]


def engine_from_flags(
    engine: str | None, workers: int | None, ray_address: str | None, gpus: float | None
) -> "EngineConfig":
    """The engine that these options choose, before anything else is done. Raises as `engines.chosen`."""
    if engine in (None, "processes") and workers != 0:
        from kuber.experiment.engines import fork_server

        fork_server.warm_up()
    from kuber.experiment.engines import engine_config  # torch: while the fork server imports it too

    return engine_config(engine, workers=workers, ray_address=ray_address, gpus_per_worker=gpus)
