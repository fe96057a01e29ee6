"""Options of `kuber simulate` and `kuber compare` that choose the engine."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kuber.experiment.engines.factory import EngineConfig

Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Engine: inline (this process), processes, or ray (a cluster). (default: processes)",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=0, help="Worker processes; 0: this process. (default: one per core)"),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="HOST:PORT", help="Address of a Ray cluster; if not set, one is started here."
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker", metavar="X", help="GPUs reserved for each work step on a Ray cluster, such as 0.5."
    ),
]


def engine_from_flags(
    engine: str | None, workers: int | None, ray_address: str | None, gpus: float | None
) -> "EngineConfig":
    """Return the engine that these options choose. Raises as `engine_config`."""
    if engine in (None, "processes") and workers != 0:
        from kuber.experiment.engines import fork_server

        fork_server.warm_up()
    from kuber.experiment.engines.factory import engine_config  # torch: while the fork server imports it too

    return engine_config(engine, workers=workers, ray_address=ray_address, gpus_per_worker=gpus)
