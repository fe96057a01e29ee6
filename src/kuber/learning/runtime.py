"""Device, precision, threads and memory layout of a run."""

import ctypes
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kuber.domain.knowledge import Architecture
from kuber.errors import SettingsError
from kuber.learning.architectures import initial_weights, make_network
from kuber.learning.weights import Weights

PROBE_SECONDS = 0.5  # for each precision
PROBE_GAIN = 1.1  # speed of bfloat16 over float32 from which it is chosen
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Make this process reuse the large blocks it frees, instead of returning them to the system at every step.

    glibc returns blocks above a threshold at once, so each step page-faults its activations in anew, which was
    measured to take 7 to 21 % of a training step. Does nothing with another C library.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # bytes, the maximum
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def release_freed_memory() -> None:
    """Return freed memory to the system. Does nothing with a C library other than glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Device, precision, threads and layout of all work steps of a run. Weights are float32 in either precision."""

    device: str  # "cpu", "cuda", "mps"
    precision: str  # "float32" or "bfloat16"
    threads: int
    channels_last: bool  # memory layout of images: measured 1.4 times faster for the cnn on a CPU

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context manager for forward passes."""
        kind, reduced = self.device.partition(":")[0], self.precision == "bfloat16"
        context: AbstractContextManager[None] = torch.autocast(kind, dtype=torch.bfloat16, enabled=reduced)
        return context

    def place(self, batch: Tensor) -> Tensor:
        """Return a batch of samples on the device, in the memory layout."""
        if self.channels_last and batch.dim() == 4:
            return batch.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        return batch.to(self.device, non_blocking=True)


def build(architecture: Architecture, weights: Weights, runtime: Runtime) -> nn.Module:
    """Return a network with these weights on the runtime's device."""
    with torch.device("meta"), _SkipInitialisation():
        network = make_network(architecture.name, architecture.arguments)
    network.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if runtime.channels_last:
        network.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(runtime.device)


class _SkipInitialisation(TorchFunctionMode):
    """Skip torch.nn.init, which has no effect on the meta device and takes half of the time to make an `mlp`."""

    _SKIPPED = frozenset(
        function for name, function in vars(nn.init).items() if name.endswith("_") and name[0] != "_"
    )

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function in self._SKIPPED:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


def available_cores() -> int:
    """Return the cores this process may use, by its affinity and the quota of its control group."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the cores that the control groups (version 2 or 1) mounted at `root` grant; infinity without a limit."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((root / name).read_text(encoding="ascii") for name in files).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return math.inf


def choose_runtime(
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    architecture: Architecture,
    batch_size: int,
    entities: int = 1,
) -> Runtime:
    """Return the runtime for these settings; `auto` is resolved by capability and a short probe.

    With `threads` 0 the cores are divided among the entities, at least one each. A precision other than `auto` is
    used even if it is slow. Raises SettingsError when the device is missing on this machine.
    """
    device = _resolve_device(device)
    runtime = Runtime(
        device=device,
        precision="float32",
        threads=threads or max(1, available_cores() // entities),
        channels_last=device != "mps" and any(len(spec.shape) == 4 for spec in architecture.manifest.values()),
    )
    reduced = replace(runtime, precision="bfloat16")
    if precision == "bfloat16":
        return reduced
    if precision == "auto" and _has_bfloat16(device):
        with _threads(runtime.threads):
            plain = _samples_per_second(runtime, architecture, batch_size)
            if _samples_per_second(reduced, architecture, batch_size) >= PROBE_GAIN * plain:
                return reduced
    return runtime


def _resolve_device(device: str) -> str:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in present.items() if available)
    if not present.get(device):
        raise SettingsError(f"torch finds no {device} device on this machine; choose --device cpu or auto.")
    return device


def _has_bfloat16(device: str) -> bool:
    """Return whether the device computes in bfloat16 natively; emulated, a step can take ten times longer."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _samples_per_second(runtime: Runtime, architecture: Architecture, batch_size: int) -> float:
    """Return the training speed in samples per second, after two steps of warm-up."""
    network = build(architecture, initial_weights(architecture, 0), runtime)
    shape = architecture.arguments["input_shape"]
    assert isinstance(shape, tuple)
    x = runtime.place(torch.zeros(batch_size, *shape))
    y = torch.zeros(batch_size, dtype=torch.int64, device=runtime.device)
    start, steps = 0.0, -2
    while steps < 1 or time.perf_counter() - start < PROBE_SECONDS:
        if steps == 0:
            start = time.perf_counter()
        with runtime.autocast():
            loss = F.cross_entropy(network(x).float(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device
        steps += 1
    return steps * batch_size / (time.perf_counter() - start)
