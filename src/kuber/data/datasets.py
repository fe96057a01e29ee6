"""The data sets that KUber knows by name, and arrays of one's own; decoded once, then mapped by every process."""

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
from kuber.data.decoded import NAMES, DecodedArrays, Numbers, digest_of
from kuber.data.samples import Samples, map_tensors
from kuber.domain.digest import Digest
from kuber.errors import DatasetError
from kuber.files import atomic_replacement

Echo = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A labelled data set for classification."""

    name: str
    labels: tuple[str, ...]  # class names, in order of the class numbers
    train: Samples
    test: Samples
    mean: tuple[float, ...]  # per channel, of the training part; of pixels scaled to 0..1
    std: tuple[float, ...]
    flip: bool  # whether a mirrored image is still of its class


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is recorded of a data set with a name."""

    fetch: Callable[[Path | None, Echo], DecodedArrays]
    digest: str  # of the decoded arrays, whatever they were decoded from
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool


KNOWN = {
    "cifar10": Known(
        fetch=cifar10.fetch,
        digest="sha256:477ae002610c0d19c46767c924c08fd5a86c3b31429bdd8e330815289cbd2719",
        labels=cifar10.LABELS,
        mean=cifar10.MEAN,
        std=cifar10.STD,
        flip=True,
    ),
    "fashion-mnist": Known(
        fetch=lambda data_dir, echo: fashion_mnist.fetch(data_dir),
        digest="sha256:dc6dc6b98c84991b711670a1cc385cec7e54583ee45714846e1958c5ed10dafc",
        labels=fashion_mnist.LABELS,
        mean=fashion_mnist.MEAN,
        std=fashion_mnist.STD,
        flip=True,
    ),
    "digits": Known(
        fetch=lambda data_dir, echo: digits.fetch(),
        digest="sha256:bb2bc48fc42f19d1e785d54b0df6f25a68c15e4bd6e39d9f5d27b95563f787cf",
        labels=digits.LABELS,
        mean=digits.MEAN,
        std=digits.STD,
        flip=False,
    ),
}


def load(
    name: str, *, data_dir: Path | None = None, cache_dir: Path, verify: bool = True, echo: Echo = lambda _: None
) -> Dataset:
    """A data set by name, the arrays in a file whose name ends in .npz, or what an installed package offers.

    It is decoded into `cache_dir` unless it is there already. `verify`, wanted once in a run, hashes what the cache
    holds and removes what is damaged; it also reads the folder the user names, which must hold the very same data.
    Raises DatasetError, with one sentence on what to do, when the data cannot be had, and SettingsError when the
    package that offers them is broken.
    """
    if name.endswith(".npz"):
        source = Path(name).expanduser()
        return _own(source.stem, npz.read(source), cache_dir)
    if name not in KNOWN:
        offer = plugins.find(plugins.DATASETS, name)
        if offer is not None:
            return _own(name, npz.offered(name, offer), cache_dir)
        choice = ", ".join(dict.fromkeys([*KNOWN, *plugins.names(plugins.DATASETS)]))
        raise DatasetError(f"There is no data set {name!r}; choose from {choice}, or a path ending in .npz.")
    known = KNOWN[name]
    digest = Digest.parse(known.digest)
    path = cache_dir / f"{name}-{digest.hex[:12]}.safetensors"
    held = _holds(path, digest, verify)
    if not held or (verify and data_dir is not None):
        arrays = _checked(known.fetch(data_dir, echo), digest, name)
        if not held:
            _store(arrays, path)
    return _dataset(name, path, labels=known.labels, mean=known.mean, std=known.std, flip=known.flip)


def _own(name: str, found: tuple[DecodedArrays, tuple[str, ...]], cache_dir: Path) -> Dataset:
    arrays, labels = found
    digest = digest_of(arrays.by_name())
    path = cache_dir / f"own-{digest.hex[:12]}.safetensors"
    if not _holds(path, digest, True):
        _store(arrays.by_name(), path)
    mean, std = _moments(arrays.train_x)
    return _dataset(name, path, labels=labels, mean=mean, std=std, flip=False)


def _dataset(
    name: str, path: Path, *, labels: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], flip: bool
) -> Dataset:
    train, test = Samples(path, "train"), Samples(path, "test")
    return Dataset(name=name, labels=labels, train=train, test=test, mean=mean, std=std, flip=flip)


def _moments(train: Numbers) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of the training part; a constant channel keeps its scale."""
    axes = (0, *range(2, train.ndim))
    unit = 255.0 if train.dtype == np.uint8 else 1.0
    mean = train.mean(axes, dtype=np.float64) / unit
    std = train.std(axes, dtype=np.float64) / unit
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _holds(path: Path, digest: Digest, verify: bool) -> bool:
    """Whether the cache holds the data set whole, and undamaged where that is asked; a damaged file is removed."""
    try:
        before = path.stat()
        tensors = map_tensors(path)
        sound = set(tensors) == NAMES and (not verify or digest_of(tensors) == digest)
    except FileNotFoundError:
        return False
    except ValueError:
        sound = False
    except OSError as error:
        raise DatasetError(f"The data cache {path} cannot be read: {error.strerror}.") from None
    if not sound:
        _remove(path, before)
    return sound


def _remove(path: Path, seen: os.stat_result) -> None:
    """Remove the file that was seen here, but not a sound one that another process has put in its place since."""
    with suppress(FileNotFoundError):
        now = path.stat()
        # A file system gives the inode of a removed file to the next one, so the time of change is compared too.
        if (now.st_ino, now.st_ctime_ns) == (seen.st_ino, seen.st_ctime_ns):
            path.unlink()


def _checked(arrays: DecodedArrays, digest: Digest, name: str) -> dict[str, Numbers]:
    """The arrays by name. Raises DatasetError when they are not the recorded ones."""
    by_name = arrays.by_name()
    decoded = digest_of(by_name)
    if decoded != digest:
        raise DatasetError(f"These are not the images of {name}: they decode to {decoded}, not {digest}.")
    return by_name


def _store(by_name: dict[str, Numbers], path: Path) -> None:
    """Write the decoded arrays to the cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replacement(path) as temporary:
            save_file(by_name, temporary)
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"The data cache {path.parent} cannot be written: {error}.") from None
