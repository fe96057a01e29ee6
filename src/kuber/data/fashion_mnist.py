"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its IDX files."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kuber.data.decoded import DecodedArrays
from kuber.errors import DatasetError

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MEAN = (0.28604060,)
STD = (0.35302424,)
PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def fetch(data_dir: Path | None) -> DecodedArrays:
    """Return the images in `data_dir`, or else in the folder of Debian's package.

    Raises DatasetError when files are missing or damaged.
    """
    folder = data_dir or PACKAGE_FOLDER
    if not folder.is_dir():
        raise DatasetError(
            f"There is no folder {folder} with Fashion-MNIST; install Debian's package dataset-fashion-mnist, "
            "or name a folder with the four IDX files with --data-dir."
        )
    return DecodedArrays(
        train_x=_idx(folder, "train-images-idx3-ubyte", dimensions=3)[:, None],
        train_y=_idx(folder, "train-labels-idx1-ubyte", dimensions=1).astype(np.int64),
        test_x=_idx(folder, "t10k-images-idx3-ubyte", dimensions=3)[:, None],
        test_y=_idx(folder, "t10k-labels-idx1-ubyte", dimensions=1).astype(np.int64),
    )


def _idx(folder: Path, name: str, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes: 0 0 8 n, n big-endian lengths, values (yann.lecun.com/exdb/mnist)."""
    try:
        if (folder / f"{name}.gz").exists():
            data = gzip.decompress((folder / f"{name}.gz").read_bytes())
        else:
            data = (folder / name).read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"The data folder {folder} lacks {name}.gz (or {name}) of Fashion-MNIST.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{folder / name} is damaged or cannot be read: {error}.") from None
    start = 4 + 4 * dimensions
    lengths = [int.from_bytes(data[place : place + 4]) for place in range(4, start, 4)]
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != start + prod(lengths):
        raise DatasetError(f"{folder / name} is damaged: it is not an IDX file of {dimensions} dimensions.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(lengths)
