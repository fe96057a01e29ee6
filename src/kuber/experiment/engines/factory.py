"""Choose and open an engine."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from kuber.errors import SettingsError
from kuber.experiment.engines.base import THREADS, Engine
from kuber.experiment.engines.inline import InlineEngine
from kuber.experiment.engines.process_pool import ProcessPool
from kuber.experiment.engines.ray import RayEngine, check_ray
from kuber.learning.runtime import available_cores

Kind = Literal["inline", "processes", "ray"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Kind and size of an engine."""

    kind: Kind = "processes"
    workers: int | None = None  # by default one per core of this machine, or of the cluster
    ray_address: str | None = None  # of a running cluster; None starts a local one
    gpus_per_worker: float = 0.0

    @property
    def parallelism(self) -> int:
        """Approximate number of work steps executed at a time."""
        return 0 if self.kind == "inline" else self.workers or available_cores()


def engine_config(
    kind: str | None = None,
    *,
    workers: int | None = None,
    ray_address: str | None = None,
    gpus_per_worker: float | None = None,
) -> EngineConfig:
    """Check the flags of an engine. Without `kind`, it is `inline` for 0 workers, else `processes`.

    Raises SettingsError if the flags contradict each other or Ray is not installed, and ServiceUnavailableError if no
    cluster answers at `ray_address`.
    """
    if kind is None:
        kind = "inline" if workers == 0 else "processes"
    if kind not in get_args(Kind):
        raise SettingsError(f"There is no engine {kind!r}; choose from: {', '.join(get_args(Kind))}.")
    if kind == "inline" and workers:
        raise SettingsError("The engine inline has no workers; omit --workers or use --engine processes.")
    if kind != "inline" and workers == 0:
        raise SettingsError(
            f"The engine {kind} needs at least one worker; use --engine inline to run without workers."
        )
    if kind != "ray" and (ray_address is not None or gpus_per_worker is not None):
        raise SettingsError("--ray-address and --gpus-per-worker need --engine ray.")
    if gpus_per_worker is not None and gpus_per_worker < 0:
        raise SettingsError("--gpus-per-worker must not be negative; use for example 0.5 or 1.")
    if kind == "ray":
        check_ray(ray_address)
        return EngineConfig(
            kind="ray", workers=workers, ray_address=ray_address, gpus_per_worker=gpus_per_worker or 0.0
        )
    return EngineConfig(kind="inline" if kind == "inline" else "processes", workers=workers)


@contextmanager
def open_engine(workers: int | EngineConfig) -> Iterator[Engine]:
    """Open an engine for a number of workers (0: `inline`, else `processes`) or of a configuration.

    Raises the errors of `engine_config` and of `RayEngine`.
    """
    config = workers if isinstance(workers, EngineConfig) else engine_config(workers=workers)
    if config.kind == "inline":
        yield InlineEngine()
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)  # the cores are for the workers
    engine: ProcessPool | RayEngine
    try:
        if config.kind == "processes":
            engine = ProcessPool(config.workers or available_cores())
        else:
            engine = RayEngine(workers=config.workers, address=config.ray_address, gpus=config.gpus_per_worker)
        with closing(engine):
            yield engine
    finally:
        torch.set_num_threads(threads)
