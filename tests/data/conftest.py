"""Small files in the formats of the data sets."""

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kuber.data.datasets import Dataset, load_dataset
from kuber.data.decoded import DecodedArrays

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
PER_BATCH = 4  # images of one batch


@dataclass(frozen=True)
class Files:
    """Files by name, to be written or packed."""

    folder: str  # in their archive
    content: dict[str, bytes]

    def changed(self, **changes: bytes | None) -> "Files":
        """Return the files with some changed or, with None, left out; names are written with _ for the dot."""
        files = {name: changes.get(name.replace(".", "_"), data) for name, data in self.content.items()}
        return Files(self.folder, {name: data for name, data in files.items() if data is not None})

    def write(self, folder: Path) -> Path:
        """Write the files into this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.content.items():
            (folder / name).write_bytes(data)
        return folder

    def pack(self) -> bytes:
        """Return a gzipped archive of the files."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, data in self.content.items():
                member = tarfile.TarInfo(f"{self.folder}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return packed.getvalue()


@dataclass(frozen=True)
class Cifar:
    """Random images, and the files of both CIFAR-10 packages that hold them."""

    arrays: DecodedArrays
    batches: Files
    sheets: Files


def png(images: np.ndarray) -> bytes:
    """Return a PNG with one image in each row, its pixels from left to right."""
    rows = images.transpose(0, 2, 3, 1).reshape(len(images), -1, 3)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rows)).save(file, "PNG")
    return file.getvalue()


def idx(values: np.ndarray) -> bytes:
    """Return an IDX file of unsigned bytes."""
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + lengths + values.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def cifar() -> Cifar:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (6 * PER_BATCH, 3, 32, 32), dtype=np.uint8)
    y = draw.integers(0, 10, 6 * PER_BATCH)
    batches, sheets = {}, {}
    for number, name in enumerate([*TRAIN, "test_batch"]):
        part = slice(number * PER_BATCH, (number + 1) * PER_BATCH)
        rows = np.concatenate([y[part, None].astype(np.uint8), x[part].reshape(PER_BATCH, -1)], axis=1)
        batches[f"{name}.bin"] = rows.tobytes()
        sheets[f"{name}.png"] = png(x[part])
    last = 5 * PER_BATCH
    sheets["train_lables.json"] = json.dumps(y[:last].tolist()).encode()
    sheets["test_lables.json"] = json.dumps(y[last:].tolist()).encode()
    return Cifar(
        arrays=DecodedArrays(train_x=x[:last], train_y=y[:last], test_x=x[last:], test_y=y[last:]),
        batches=Files("cifar-10-batches-bin", batches),
        sheets=Files("package", sheets),
    )


@pytest.fixture(scope="session")
def fashion_files() -> Files:
    """The four IDX files, two of them gzipped; pixel values count up."""
    content = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(np.arange(6 * 784).reshape(6, 28, 28) % 251)),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.arange(6))),
        "t10k-images-idx3-ubyte": idx(np.arange(4 * 784).reshape(4, 28, 28) % 249),
        "t10k-labels-idx1-ubyte": idx(np.arange(4) + 5),
    }
    return Files("", content)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Replace npm by a script; the only other commands are the shell's own and those in /bin."""

    def install(script: str) -> None:
        folder = tmp_path / "commands"
        folder.mkdir()
        (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/bin")

    return install
