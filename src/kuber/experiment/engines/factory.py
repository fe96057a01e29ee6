"""The engine that was asked for, for as long as it is needed."""

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
    """Which engine, and how large."""

    kind: Kind = "processes"
    workers: int | None = None  # that compute at a time; by default one a core, of a cluster elsewhere all its cores
    ray_address: str | None = None  # of a cluster; None for one of our own
    gpus_per_worker: float = 0.0

    @property
    def parallelism(self) -> int:
        """About how many steps are computed at once."""
        return 0 if self.kind == "inline" else self.workers or available_cores()


def engine_config(
    kind: str | None = None,
    *,
    workers: int | None = None,
    ray_address: str | None = None,
    gpus_per_worker: float | None = None,
) -> EngineConfig:
    """The choice that these flags make: without a kind it is `inline` for no workers, else `processes`.

    Raises SettingsError when they contradict each other or Ray is not installed, and ServiceUnavailableError when no
    cluster answers.
    """
    if kind is None:
        kind = "inline" if workers == 0 else "processes"
    if kind not in get_args(Kind):
        raise SettingsError(f"There is no engine {kind!r}; choose from: {', '.join(get_args(Kind))}.")
    if kind == "inline" and workers:
        raise SettingsError("The engine inline has no workers; leave --workers out, or choose --engine processes.")
    if kind != "inline" and workers == 0:
        raise SettingsError(f"The engine {kind} needs at least one worker; choose --engine inline for none.")
    if kind != "ray" and (ray_address is not None or gpus_per_worker is not None):
        raise SettingsError("--ray-address and --gpus-per-worker are for --engine ray; give that too.")
    if gpus_per_worker is not None and gpus_per_worker < 0:
        raise SettingsError("A worker cannot have less than no GPU; give --gpus-per-worker 0.5, or 1.")
    if kind == "ray":
        check_ray(ray_address)
        return EngineConfig(
            kind="ray", workers=workers, ray_address=ray_address, gpus_per_worker=gpus_per_worker or 0.0
        )
    return EngineConfig(kind="inline" if kind == "inline" else "processes", workers=workers)


@contextmanager
def open_engine(workers: int | EngineConfig) -> Iterator[Engine]:
    """An engine of this choice, or for so many workers (`inline` for none, else `processes`), until the context ends.

    Raises as `engine_config`, and as `RayEngine`.
    """
    choice = workers if isinstance(workers, EngineConfig) else engine_config(workers=workers)
    if choice.kind == "inline":
        yield InlineEngine()
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)  # the cores are for the workers
    try:
        yield from _shared(choice)
    finally:
        torch.set_num_threads(threads)


def _shared(choice: EngineConfig) -> Iterator[Engine]:
    if choice.kind == "processes":
        with closing(ProcessPool(choice.workers or available_cores())) as processes:
            yield processes
    else:
        ray = RayEngine(workers=choice.workers, address=choice.ray_address, gpus=choice.gpus_per_worker)
        with closing(ray):
            yield ray
