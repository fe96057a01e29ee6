"""The user's images: a folder with a subfolder of images for each class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kuber.errors import DatasetError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_MODES = {1: "L", 3: "RGB"}


def read_images(folder: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Return all images scaled to `shape` (channels, height, width), their class numbers, and the class names.

    A class has the name of its folder. Raises DatasetError when there are no images, or one cannot be read.
    """
    if len(shape) != 3 or shape[0] not in _MODES:
        raise DatasetError(
            f"The samples of this task have shape {shape}, which is not that of images; give an .npz file."
        )
    channels, height, width = shape
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    images, labels = [], []
    for number, name in enumerate(names):
        for path in sorted(folder.joinpath(name).iterdir()):
            if path.suffix.lower() in _SUFFIXES:
                images.append(_read_image(path, _MODES[channels], (width, height)))
                labels.append(number)
    if not images:
        raise DatasetError(f"There are no images in {folder}: it needs a subfolder of images for each class.")
    stacked = np.stack(images)
    stacked = stacked[:, None] if channels == 1 else stacked.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked), np.array(labels, np.int64), names


def _read_image(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            scaled = image.convert(mode)
            return np.asarray(scaled if scaled.size == size else scaled.resize(size, Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"The image {path} cannot be read: {error}.") from None
