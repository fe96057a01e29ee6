"""Images of one's own: a folder with a folder of pictures for each class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kuber.errors import DatasetError

_KINDS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_MODES = {1: "L", 3: "RGB"}


def read_images(folder: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Every picture, scaled to `shape` (channels, height, width), with its class number, and the classes' names.

    A class is called after its folder. Raises DatasetError when there are no pictures, or one cannot be read.
    """
    if len(shape) != 3 or shape[0] not in _MODES:
        raise DatasetError(f"The samples of this task have shape {shape}: they are no images; give an .npz file.")
    channels, height, width = shape
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    images, labels = [], []
    for number, name in enumerate(names):
        for path in sorted(folder.joinpath(name).iterdir()):
            if path.suffix.lower() in _KINDS:
                images.append(_picture(path, _MODES[channels], (width, height)))
                labels.append(number)
    if not images:
        raise DatasetError(f"There are no pictures in {folder}: it needs a folder of them for each class.")
    stacked = np.stack(images)
    stacked = stacked[:, None] if channels == 1 else stacked.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked), np.array(labels, np.int64), names


def _picture(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            scaled = image.convert(mode)
            return np.asarray(scaled if scaled.size == size else scaled.resize(size, Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"The picture {path} cannot be read: {error}.") from None
