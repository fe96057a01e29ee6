"""Data sets by name, and arrays of the user's own; decoded once into a cache file that every process maps."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from kuber import plugins
from kuber.data import cifar10, digits, fashion_mnist, npz
from kuber.data.decoded import NAMES, Array, DecodedArrays, digest_of
from kuber.data.samples import Samples, map_tensors
from kuber.domain.digest import Digest
from kuber.errors import DatasetError
from kuber.files import atomic_replacement
from kuber.settings import expand_home

Echo = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A labelled data set for classification."""

    name: str
    labels: tuple[str, ...]  # class names, in order of the class numbers
    train: Samples
    test: Samples
    mean: tuple[float, ...]  # per channel of the training part, with pixels scaled to 0..1
    std: tuple[float, ...]
    flip: bool  # whether a mirrored image still belongs to its class


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltIn:
    """Source and constants of a built-in data set."""

    fetch: Callable[[Path | None, Echo], DecodedArrays]
    digest: str  # of the decoded arrays, which is the same for every source
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool


BUILT_IN = {
    "cifar10": BuiltIn(
        fetch=cifar10.fetch,
        digest="sha256:477ae002610c0d19c46767c924c08fd5a86c3b31429bdd8e330815289cbd2719",
        labels=cifar10.LABELS,
        mean=cifar10.MEAN,
        std=cifar10.STD,
        flip=True,
    ),
    "fashion-mnist": BuiltIn(
        fetch=lambda data_dir, echo: fashion_mnist.fetch(data_dir),
        digest="sha256:dc6dc6b98c84991b711670a1cc385cec7e54583ee45714846e1958c5ed10dafc",
        labels=fashion_mnist.LABELS,
        mean=fashion_mnist.MEAN,
        std=fashion_mnist.STD,
        flip=True,
    ),
    "digits": BuiltIn(
        fetch=lambda data_dir, echo: digits.fetch(),
        digest="sha256:bb2bc48fc42f19d1e785d54b0df6f25a68c15e4bd6e39d9f5d27b95563f787cf",
        labels=digits.LABELS,
        mean=digits.MEAN,
        std=digits.STD,
        flip=False,
    ),
}


def load_dataset(
    name: str, *, data_dir: Path | None = None, cache_dir: Path, verify: bool = True, echo: Echo = lambda _: None
) -> Dataset:
    """Return a built-in data set, the arrays of an .npz file, or the data set of a plugin.

    It is decoded into `cache_dir` unless it is there already. `verify`, for one process of a run, hashes the cached
    file and replaces a damaged one; it also checks that the user's folder holds the same data. Raises DatasetError,
    with what to do, when the data cannot be loaded, and SettingsError when the plugin is broken.
    """
    if name.endswith(".npz"):
        source = expand_home(Path(name))
        return _cache_arrays(source.stem, npz.read(source), cache_dir)
    if name not in BUILT_IN:
        plugin = plugins.find(plugins.DATASETS, name)
        if plugin is not None:
            return _cache_arrays(name, npz.from_plugin(name, plugin), cache_dir)
        choice = ", ".join(dict.fromkeys([*BUILT_IN, *plugins.names(plugins.DATASETS)]))
        raise DatasetError(f"There is no data set {name!r}; choose from {choice}, or a path ending in .npz.")
    entry = BUILT_IN[name]
    digest = Digest.parse(entry.digest)
    path = cache_dir / f"{name}-{digest.hex[:12]}.safetensors"
    cached = _is_cached(path, digest, verify)
    if not cached or (verify and data_dir is not None):
        arrays = entry.fetch(data_dir, echo).by_name()
        if (decoded := digest_of(arrays)) != digest:
            raise DatasetError(f"These are not the images of {name}: their digest is {decoded}, not {digest}.")
        if not cached:
            _store(arrays, path)
    return _dataset(name, path, labels=entry.labels, mean=entry.mean, std=entry.std, flip=entry.flip)


def _cache_arrays(name: str, content: tuple[DecodedArrays, tuple[str, ...]], cache_dir: Path) -> Dataset:
    arrays, labels = content
    by_name = arrays.by_name()
    digest = digest_of(by_name)
    path = cache_dir / f"own-{digest.hex[:12]}.safetensors"
    if not _is_cached(path, digest, True):
        _store(by_name, path)
    mean, std = _channel_statistics(arrays.train_x)
    return _dataset(name, path, labels=labels, mean=mean, std=std, flip=False)


def _dataset(
    name: str, path: Path, *, labels: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], flip: bool
) -> Dataset:
    train, test = Samples(path, "train"), Samples(path, "test")
    return Dataset(name=name, labels=labels, train=train, test=test, mean=mean, std=std, flip=flip)


def _channel_statistics(train: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel; the deviation of a constant channel is 1."""
    axes = (0, *range(2, train.ndim))
    unit = 255.0 if train.dtype == np.uint8 else 1.0
    mean = train.mean(axes, dtype=np.float64) / unit
    std = train.std(axes, dtype=np.float64) / unit
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _is_cached(path: Path, digest: Digest, verify: bool) -> bool:
    """Return whether the whole data set is cached, with the right digest if `verify`; remove a damaged file."""
    try:
        seen = path.stat()
        tensors = map_tensors(path)
        valid = set(tensors) == NAMES and (not verify or digest_of(tensors) == digest)
    except FileNotFoundError:
        return False
    except ValueError:
        valid = False
    except OSError as error:
        raise DatasetError(f"The data cache {path} cannot be read: {error.strerror}.") from None
    if not valid:
        _remove(path, seen)
    return valid


def _remove(path: Path, seen: os.stat_result) -> None:
    """Remove the file that was seen here, but not a new one that another process has put in its place."""
    with suppress(FileNotFoundError):
        now = path.stat()
        # A file system reuses the inode of a removed file, so compare the time of change too.
        if (now.st_ino, now.st_ctime_ns) == (seen.st_ino, seen.st_ctime_ns):
            path.unlink()


def _store(by_name: dict[str, Array], path: Path) -> None:
    """Write the decoded arrays to the cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replacement(path) as temporary:
            save_file(by_name, temporary)
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"The data cache {path.parent} cannot be written: {error}.") from None
