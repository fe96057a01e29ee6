"""The engine `ray`: work steps as tasks of a Ray cluster, on one machine or many.

A work step is pure, so one whose machine died is repeated elsewhere. Large tensors go through Ray's object store,
which tasks read in place; results are copied to a mapped file at once, so the store holds only steps under way.
"""

import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from kuber.entity.work.steps import Work
from kuber.errors import ServiceUnavailableError, SettingsError, TrainingError, first_line
from kuber.experiment.engines.mapped_memory import Bytes, MappedMemoryWriter
from kuber.experiment.engines.ray_task import VERSIONS, SamplesPacker, do_step, file_digest
from kuber.experiment.engines.serialization import pack, unpack

RETRIES = 5  # of a step whose machine or process died
STEPS_PER_WORKER = 2  # submitted at a time: the weights of the second are sent while the first is computed
CONNECT_SECONDS = 5.0


def check_ray(address: str | None) -> None:
    """Raise SettingsError if Ray is not installed, ServiceUnavailableError if no cluster answers at `address`."""
    _import_ray()
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise SettingsError(
            f"The address of a Ray cluster must be HOST:PORT of its head node, or auto, not {address!r}."
        )
    unreachable = ServiceUnavailableError(
        f"No Ray cluster answers at {address}; start one there with `ray start --head`, or omit the address."
    )
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS):
            pass
        # The port is open; `ray.init` would wait for minutes if it were not that of a cluster.
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        done = subprocess.run(command, capture_output=True, timeout=2 * CONNECT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise unreachable from None
    if done.returncode:
        raise unreachable


class RayEngine:
    """Ray tasks of one thread each. The number under way keeps the cluster busy and bounds memory."""

    def __init__(self, *, workers: int | None, address: str | None, gpus: float) -> None:
        """Connect to the cluster at `address`, or start a local one for None, and compute `workers` steps at a time.

        By default all cores of the cluster are used. `gpus` is the number of GPUs, or share of one, per step. Raises
        SettingsError if Ray is not installed or the cluster lacks GPUs, ServiceUnavailableError if the cluster cannot
        be joined or started.
        """
        self._ray = _import_ray()
        self._folder = tempfile.TemporaryDirectory(
            prefix="kuber-ray-", dir=_short_folder(), ignore_cleanup_errors=True
        )
        self._connect(workers, address)
        try:
            resources = self._ray.cluster_resources()
            if gpus > resources.get("GPU", 0):
                raise SettingsError(
                    f"--gpus-per-worker is {gpus:g}, but the cluster has {resources.get('GPU', 0):g} GPUs; "
                    "omit it, or add machines with GPUs to the cluster."
                )
            self._limit = STEPS_PER_WORKER * (workers or max(1, int(resources.get("CPU", 1))))
            options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": RETRIES}
            self._do = self._ray.remote(**options)(do_step)
        except BaseException:
            self._disconnect()
            raise
        self._memory = MappedMemoryWriter()
        self._files: dict[Path, _File] = {}
        self._lock = threading.RLock()
        self._waiting: deque[_Task] = deque()
        self._under_way: set[_Task] = set()
        self._ended = False
        self._done: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine")
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        task = _Task(work)
        with self._lock:
            if self._ended:
                raise RuntimeError("the engine has ended")
            self._waiting.append(task)
            self._dispatch()
        return task.future

    def close(self) -> None:
        """Leave the cluster, or stop it if it was started here; cancel the work steps that are not done."""
        with self._lock:
            self._ended = True
            tasks = [*self._under_way, *self._waiting]
            self._waiting.clear()
        self._done.put(None)
        self._thread.join()
        for task in tasks:
            task.reply = None
            task.future.cancel()
        self._disconnect()

    def _run(self) -> None:
        while (task := self._done.get()) is not None:
            with self._lock:
                self._under_way.discard(task)
                reply, task.reply = task.reply, None
                if self._ended:
                    return
                self._dispatch()
            assert reply is not None
            try:
                self._receive(task, reply)
            except Exception as error:  # noqa: BLE001 - the future raises it
                task.future.set_exception(error)

    def _receive(self, task: "_Task", reply: "Future[Any]") -> None:
        error = reply.exception()
        if error is not None:
            raise _abandoned(error)
        kind, message, arrays = reply.result()
        if kind == "missing":
            with self._lock:
                task.file = self._file(Path(message)).stored(self._ray)
                self._waiting.appendleft(task)
                self._dispatch()
            return
        parts: list[Bytes] = []
        if arrays:
            block, places = self._memory.write([array.data for array in arrays])
            whole = self._memory.view(block)
            parts = [whole[place.offset - block.offset :][: place.size] for place in places]
            self._memory.note_read(block.size)
        value = unpack(message, [part.data for part in parts])
        if kind == "failed":
            raise value
        task.future.set_result(value)

    def _dispatch(self) -> None:
        """Submit waiting work steps up to the limit. The lock must be held."""
        while self._waiting and len(self._under_way) < self._limit and not self._ended:
            task = self._waiting.popleft()
            try:
                message, parts = pack(task.work, SamplesPacker, self._file)
                reply = self._do.remote(VERSIONS, message, [part.array for part in parts], task.file).future()
            except Exception as error:  # noqa: BLE001 - not picklable: the future raises it
                task.future.set_exception(error)
                continue
            task.reply = reply
            self._under_way.add(task)
            reply.add_done_callback(partial(self._on_done, task))

    def _on_done(self, task: "_Task", _: "Future[Any]") -> None:
        self._done.put(task)

    def _file(self, path: Path) -> "_File":
        if path not in self._files:
            self._files[path] = _File(path)
        return self._files[path]

    def _connect(self, workers: int | None, address: str | None) -> None:
        options: dict[str, Any] = {"address": address}
        if address is None:
            options = {"address": "local", "num_cpus": workers, "include_dashboard": False}
            options["_temp_dir"] = self._folder.name
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(configure_logging=False, log_to_driver=False, **options)
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            self._disconnect()
            where = "cannot be started here" if address is None else f"at {address} cannot be joined from here"
            raise ServiceUnavailableError(f"The Ray cluster {where}: {first_line(error)}.") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray installs its own

    def _disconnect(self) -> None:
        self._ray.shutdown()
        self._folder.cleanup()


@dataclass(eq=False)
class _Task:
    """A submitted work step."""

    work: Work
    future: Future[Any] = field(default_factory=Future)
    file: Any = None  # reference to the samples' file, if the machine of the task lacked it
    reply: Future[Any] | None = None


class _File:
    """A file of samples that tasks refer to by path and digest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = file_digest(path)
        self._stored: Any = None

    def stored(self, ray: Any) -> Any:
        """Return a reference to its bytes in the object store."""
        if self._stored is None:
            self._stored = ray.put(np.fromfile(self.path, np.uint8))
        return self._stored


def _abandoned(error: BaseException) -> TrainingError:
    """Return the error for a work step that Ray gave up."""
    return TrainingError(
        f"The Ray cluster gave up a work step ({type(error).__name__}: {first_line(error)}.) "
        "Check that KUber is installed on each machine and that they have enough memory, then try again."
    )


def _short_folder() -> str:
    """Return a temporary folder with a short name: the path of a socket in it may have 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 20 else "/tmp"  # noqa: S108 - a new folder with a random name is made in it


def _import_ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it prints a deprecation warning
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise SettingsError("Ray is not installed; install it with: pip install 'kuber[ray]'") from None
