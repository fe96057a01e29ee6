"""The engine `ray`: work steps as tasks of a Ray cluster, on one machine or many.

A step is pure, so one whose machine died is done again elsewhere. Big tensors go through Ray's object store, which
tasks read in place; results are moved from there to an arena at once: the store holds only what is under way.
"""

import hashlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from kuber import __version__
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.entity.work.steps import Work
from kuber.errors import DatasetError, ServiceUnavailableError, SettingsError, TrainingError, first_line
from kuber.experiment.engines.base import THREADS, ignore_progress
from kuber.experiment.engines.mapped_memory import Bytes, MappedMemoryWriter
from kuber.experiment.engines.serialization import Packer, pack, portable_error, unpack
from kuber.files import atomic_replacement
from kuber.learning.runtime import keep_freed_memory

RETRIES = 5  # of a step whose machine or process died
AHEAD = 2  # steps under way for each that is computed: the next one's weights travel meanwhile
ANSWER_SECONDS = 5.0
_VERSIONS = f"KUber {__version__}, torch {torch.__version__}"  # others would give other bits


def check_ray(address: str | None) -> None:
    """SettingsError when Ray is not installed, ServiceUnavailableError when no cluster answers at `address`."""
    _installed()
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise SettingsError(f"The address of a Ray cluster is HOST:PORT of its head, or auto, not {address!r}.")
    silent = ServiceUnavailableError(
        f"No Ray cluster answers at {address}; start one there with `ray start --head`, or leave the address out."
    )
    try:
        with socket.create_connection((host, int(port)), ANSWER_SECONDS):
            pass
        # Somebody listens; `ray.init` would wait for minutes if it were not a cluster.
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        done = subprocess.run(command, capture_output=True, timeout=2 * ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise silent from None
    if done.returncode:
        raise silent


class RayEngine:
    """Tasks of one thread each; so many are under way that the cluster is busy, and memory bounded."""

    def __init__(self, *, workers: int | None, address: str | None, gpus: float) -> None:
        """`workers` computes at a time; of a cluster elsewhere all its cores by default, here as many as given.

        Raises SettingsError when Ray is not installed or a step wants GPUs that the cluster has not, and
        ServiceUnavailableError when there is no cluster to be had.
        """
        self._ray = _installed()
        self._folder = tempfile.TemporaryDirectory(prefix="kuber-ray-", dir=_short(), ignore_cleanup_errors=True)
        self._connect(workers, address)
        try:
            resources = self._ray.cluster_resources()
            if gpus > resources.get("GPU", 0):
                raise SettingsError(
                    f"Each step is to have {gpus:g} of a GPU, but the cluster has {resources.get('GPU', 0):g}; "
                    "leave --gpus-per-worker out, or join machines with GPUs."
                )
            self._most = AHEAD * (workers or max(1, int(resources.get("CPU", 1))))
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
            self._hand_out()
        return task.future

    def close(self) -> None:
        """Leave the cluster, or end it where it is ours; what is not done is cancelled."""
        with self._lock:
            self._ended = True
            tasks = [*self._under_way, *self._waiting]
            self._waiting.clear()
        self._done.put(None)
        self._thread.join()
        for task in tasks:
            task.found = None
            task.future.cancel()
        self._disconnect()

    def _run(self) -> None:
        while (task := self._done.get()) is not None:
            with self._lock:
                self._under_way.discard(task)
                found, task.found = task.found, None
                if self._ended:
                    return
                self._hand_out()
            assert found is not None
            try:
                self._take(task, found)
            except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
                task.future.set_exception(error)

    def _take(self, task: "_Task", found: "Future[Any]") -> None:
        error = found.exception()
        if error is not None:
            raise _lost(error)
        kind, message, arrays = found.result()
        if kind == "missing":
            with self._lock:
                task.file = self._file(Path(message)).stored(self._ray)
                self._waiting.appendleft(task)
                self._hand_out()
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

    def _hand_out(self) -> None:
        """Send what there is room for; the lock is held."""
        while self._waiting and len(self._under_way) < self._most and not self._ended:
            task = self._waiting.popleft()
            try:
                message, parts = pack(task.work, _SamplesPacker, self._file)
                found = self._do.remote(_VERSIONS, message, [part.array for part in parts], task.file).future()
            except Exception as error:  # noqa: BLE001 - a step that cannot travel: whoever asks is told
                task.future.set_exception(error)
                continue
            task.found = found
            self._under_way.add(task)
            found.add_done_callback(partial(self._on_done, task))

    def _on_done(self, task: "_Task", _: "Future[Any]") -> None:
        self._done.put(task)

    def _file(self, path: Path) -> "_File":
        if path not in self._files:
            self._files[path] = _File(path)
        return self._files[path]

    def _connect(self, workers: int | None, address: str | None) -> None:
        told: dict[str, Any] = {"address": address}
        if address is None:
            told = {"address": "local", "num_cpus": workers, "include_dashboard": False}
            told["_temp_dir"] = self._folder.name
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(configure_logging=False, log_to_driver=False, **told)
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            self._disconnect()
            where = "cannot be started here" if address is None else f"at {address} cannot be joined from here"
            raise ServiceUnavailableError(f"The Ray cluster {where}: {first_line(error)}.") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray puts its own there

    def _disconnect(self) -> None:
        self._ray.shutdown()
        self._folder.cleanup()


@dataclass(eq=False)
class _Task:
    """A work step on its way."""

    work: Work
    future: Future[Any] = field(default_factory=Future)
    file: Any = None  # a reference to samples that the machine it came to lacked
    found: Future[Any] | None = None


class _File:
    """A file of samples, as tasks are told of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = _digest(path)
        self._stored: Any = None

    def stored(self, ray: Any) -> Any:
        """A reference to its bytes in the object store."""
        if self._stored is None:
            self._stored = ray.put(np.fromfile(self.path, np.uint8))
        return self._stored


class _SamplesPacker(Packer):
    """Samples as rows of a file with a digest."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Samples):
            path = Path(os.path.abspath(value.path))
            return _samples, (str(path), self.context(path).digest.hex, value.part, value.rows, value.label_map)
        return super().reducer_override(value)


class _MissingError(Exception):
    """This machine has not got a file."""


def do_step(versions: str, message: bytes, arrays: Sequence[Bytes], file: Bytes | None) -> Any:
    """The task: what came of it (done, failed, missing), a message, and big arrays beside it."""
    _begin()
    try:
        if versions != _VERSIONS:
            raise TrainingError(
                f"A machine of the cluster has {_VERSIONS} instead of {versions}; install the same on all of them."
            )
        if file is not None:
            _keep(file)
        try:
            work: Work = unpack(message, arrays)
        except _MissingError as missing:
            if file is not None:
                raise DatasetError(f"The samples in {missing.args[0]} were changed meanwhile; start again.") from None
            return "missing", missing.args[0], []
        value, kind = work.do(ignore_progress), "done"
    except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
        value, kind = portable_error(error), "failed"
    packed = pack(value)
    return kind, packed.message, [part.array for part in packed.parts]


def _begin() -> None:
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    # Tensors in the object store can only be read, and steps only read them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


_here: dict[tuple[str, str], Path] = {}  # path and digest that a task was told -> where this process found the file


def _samples(path: str, digest: str, part: str, rows: Any, label_map: tuple[int, ...] | None) -> Samples:
    """The samples that a task was told of, from a file that surely has them."""
    key = path, digest
    if key not in _here:
        for place in (Path(path), _kept(digest)):
            if place.exists() and _digest(place).hex == digest:
                _here[key] = place
                break
        else:
            raise _MissingError(path)
    return Samples(path=_here[key], part=part, rows=rows, label_map=label_map)


def _kept(digest: str) -> Path:
    return Path(tempfile.gettempdir()) / f"kuber-samples-{os.getuid()}" / f"{digest}.safetensors"


def _keep(file: Bytes) -> None:
    """Write a file that came through the object store to where all tasks of this machine find it."""
    path = _kept(hashlib.sha256(file.data).hexdigest())
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with atomic_replacement(path) as whole:
        whole.write_bytes(file.data)


def _digest(path: Path) -> Digest:
    try:
        with path.open("rb") as file:
            return Digest(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise DatasetError(f"The samples in {path} cannot be read: {error.strerror}.") from None


def _lost(error: BaseException) -> TrainingError:
    """What is said when Ray itself gave up a step."""
    return TrainingError(
        f"The Ray cluster did not do a work step ({type(error).__name__}: {first_line(error)}.) "
        "See that KUber is installed on each machine and that their memory suffices, and try again."
    )


def _short() -> str:
    """A temporary folder in which a socket finds room: its whole path can have 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 20 else "/tmp"  # noqa: S108 - the folder in it has a name of its own


def _installed() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers of us
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it prints of a change to come
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise SettingsError("Ray is not installed; install it with: pip install 'kuber[ray]'") from None
