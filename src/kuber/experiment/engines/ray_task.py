"""The tasks of the engine `ray`: what a machine of the cluster executes, and how it gets the samples."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kuber import __version__
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.entity.work.steps import Work
from kuber.errors import DatasetError, TrainingError
from kuber.experiment.engines.base import THREADS, ignore_progress
from kuber.experiment.engines.mapped_memory import Bytes
from kuber.experiment.engines.serialization import Packer, pack, portable_error, unpack
from kuber.files import atomic_replacement, write_all
from kuber.learning.runtime import keep_freed_memory

VERSIONS = f"KUber {__version__}, torch {torch.__version__}"  # others may compute other bits


class SamplesPacker(Packer):
    """Pickles samples as rows of a file with a digest."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Samples):
            path = Path(os.path.abspath(value.path))
            digest = self.context(path).digest.hex
            return _restore_samples, (str(path), digest, value.part, value.rows, value.label_map)
        return super().reducer_override(value)


class _MissingError(Exception):
    """A file of samples is not on this machine."""


def do_step(versions: str, message: bytes, arrays: Sequence[Bytes], file: Bytes | None) -> Any:
    """Execute a work step in a Ray task. Return its status (done, failed, missing), a message, and large arrays."""
    _set_up()
    try:
        if versions != VERSIONS:
            raise TrainingError(
                f"A machine of the cluster has {VERSIONS} instead of {versions}; install the same on all machines."
            )
        if file is not None:
            _store(file)
        try:
            work: Work = unpack(message, arrays)
        except _MissingError as missing:
            if file is not None:
                raise DatasetError(f"The samples in {missing.args[0]} have changed; start again.") from None
            return "missing", missing.args[0], []
        value, kind = work.do(ignore_progress), "done"
    except Exception as error:  # noqa: BLE001 - the driver raises it
        value, kind = portable_error(error), "failed"
    packed = pack(value)
    return kind, packed.message, [part.array for part in packed.parts]


def _set_up() -> None:
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    # Tensors in the object store are read-only, and work steps do not write to them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


_local_paths: dict[tuple[str, str], Path] = {}  # (path, digest) in a task -> path of that file on this machine


def _restore_samples(path: str, digest: str, part: str, rows: Any, label_map: tuple[int, ...] | None) -> Samples:
    """Restore samples from a file with this digest. Raises _MissingError if this machine has none."""
    key = path, digest
    if key not in _local_paths:
        for candidate in (Path(path), stored_path(digest)):
            if candidate.exists() and file_digest(candidate).hex == digest:
                _local_paths[key] = candidate
                break
        else:
            raise _MissingError(path)
    return Samples(path=_local_paths[key], part=part, rows=rows, label_map=label_map)


def stored_path(digest: str) -> Path:
    return Path(tempfile.gettempdir()) / f"kuber-samples-{os.getuid()}" / f"{digest}.safetensors"


def _store(file: Bytes) -> None:
    """Write a file from the object store to the folder where all tasks of this machine find it."""
    path = stored_path(hashlib.sha256(file.data).hexdigest())
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with atomic_replacement(path) as temporary, temporary.open("wb", buffering=0) as written:
        write_all(written, file.data)


def file_digest(path: Path) -> Digest:
    try:
        with path.open("rb") as file:
            return Digest(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise DatasetError(f"The samples in {path} cannot be read: {error.strerror}.") from None
