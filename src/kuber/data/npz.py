"""The user's arrays, from an .npz file or a plugin."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kuber.data.decoded import Array, DecodedArrays
from kuber.data.partition import stratified
from kuber.errors import DatasetError

TEST_SHARE = 0.2  # of the samples, where there is no test part
_MIN_SAMPLES = 20
_NAMES = ("x", "y", "classes", "x_test", "y_test")


def read(path: Path) -> tuple[DecodedArrays, tuple[str, ...]]:
    """Return the arrays of a file, split 80 to 20 without a test part, and the class names.

    The class names are in `classes`, or else those in `y`. `x`: uint8 or float of shape (n, height, width), (n,
    height, width, 1 or 3), (n, channels, height, width) or (n, features). `y`: class numbers, or names. Raises
    DatasetError with one sentence on what is wrong.
    """
    return split_arrays(path, _read_arrays(path))


def read_whole(path: Path) -> tuple[Array, NDArray[np.int64], tuple[str, ...]]:
    """Return all samples of a file as for `read`, channels first, their class numbers, and the class names."""
    arrays = _read_arrays(path)
    x = _samples(path, arrays["x"])
    if arrays["y"].ndim != 1 or len(x) != len(arrays["y"]) or not len(x):
        raise DatasetError(f"In {path}, y must hold one label for each of the samples, and at least one.")
    return x, *_labels(path, arrays["y"], arrays.get("classes"))


def from_plugin(name: str, function: Callable[[], Any]) -> tuple[DecodedArrays, tuple[str, ...]]:
    """Return the same from a plugin's function, which returns a mapping of arrays named as in the file."""
    source = f"The data set {name!r}"
    try:
        returned = dict(function())
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything; the message names it
        raise DatasetError(f"{source} cannot be loaded: {type(error).__name__}: {error}.") from None
    try:
        arrays = {key: np.asarray(returned[key]) for key in _NAMES if key in returned}
    except ValueError:
        raise DatasetError(
            f"{source} returns something that is not an array; its function must return arrays x and y."
        ) from None
    for key in ("x", "y"):
        if key not in arrays:
            raise DatasetError(f"{source} lacks the array {key}; its function must return arrays x and y.")
    return split_arrays(f"the data set {name!r}", arrays)


def split_arrays(source: object, arrays: dict[str, Array]) -> tuple[DecodedArrays, tuple[str, ...]]:
    """Check the arrays, and split them 80 to 20 unless they have a test part; `source` names them in errors."""
    test_part = {"x_test", "y_test"} & set(arrays)
    if len(test_part) == 1:
        raise DatasetError(f"In {source}, x_test and y_test must be given together.")
    if test_part:
        if arrays["x"].dtype != arrays["x_test"].dtype:
            raise DatasetError(f"In {source}, x and x_test must be of one dtype.")
        if not arrays["y_test"].size or arrays["y_test"].shape[:1] != arrays["x_test"].shape[:1]:
            raise DatasetError(
                f"In {source}, y_test must hold one label for each sample of x_test, and at least one."
            )
        # Checked together, so that both parts have the same shape, dtype and class numbers.
        try:
            count = np.size(arrays["x"], 0)
            arrays = arrays | {key: np.concatenate([arrays[key], arrays[f"{key}_test"]]) for key in ("x", "y")}
        except ValueError:
            raise DatasetError(
                f"In {source}, x_test and y_test must have the shapes of x and y but for their length."
            ) from None
    x, y = _samples(source, arrays["x"]), arrays["y"]
    if y.ndim != 1 or len(x) != len(y):
        raise DatasetError(
            f"In {source}, y must hold one label for each of the {len(x)} samples; its shape is {y.shape}."
        )
    if len(y) < _MIN_SAMPLES:
        raise DatasetError(f"{source} holds {len(y)} samples; at least {_MIN_SAMPLES} are needed.")
    numbers, names = _labels(source, y, arrays.get("classes"))
    if test_part:
        train, test = np.split(np.arange(len(y)), [count])
    else:
        test, train = stratified(numbers, round(TEST_SHARE * len(y)), seed=0)
    decoded = DecodedArrays(train_x=x[train], train_y=numbers[train], test_x=x[test], test_y=numbers[test])
    return decoded, names


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _NAMES if name in file.files}
    except FileNotFoundError:
        raise DatasetError(f"There is no file {path}.") from None
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, BadZipFile, zlib.error):
        raise DatasetError(
            f"{path} is not an .npz file of plain arrays; make it with numpy.savez(path, x=..., y=...)."
        ) from None
    for name in ("x", "y"):
        if name not in arrays:
            raise DatasetError(f"{path} lacks the array {name}; make it with numpy.savez(path, x=..., y=...).")
    return arrays


def _samples(source: object, x: Array) -> Array:
    """Return the samples channels first, as uint8 or float32."""
    if x.dtype != np.uint8:
        if x.dtype.kind not in "fiu":
            raise DatasetError(f"In {source}, x must hold numbers, not {x.dtype}.")
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DatasetError(f"In {source}, x holds values that are not finite.")
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise DatasetError(f"In {source}, x must hold images or vectors; its shape is {x.shape}.")
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x


def _labels(source: object, y: Array, classes: Array | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class numbers from 0, and the name of each class.

    Numbers in `y` are indices into `classes`; without `classes`, each distinct number is the name of a class.
    """
    if y.dtype.kind not in "iuU":
        raise DatasetError(f"In {source}, y must hold class numbers or names, not {y.dtype}.")
    if classes is not None and classes.ndim != 1:
        raise DatasetError(f"In {source}, classes must be a list of names; its shape is {classes.shape}.")
    found, inverse = np.unique(y, return_inverse=True)
    if len(found) < 2:
        raise DatasetError(f"In {source}, y must hold at least two classes.")
    if y.dtype.kind != "U" and found[0] < 0:
        raise DatasetError(f"In {source}, y holds {found[0]}, but class numbers count from 0.")
    names = [str(name) for name in (found if classes is None else classes)]
    if len(set(names)) != len(names):
        raise DatasetError(f"In {source}, classes must name each class once.")
    if classes is None:
        return inverse.astype(np.int64), tuple(names)
    known = names if y.dtype.kind == "U" else list(range(len(names)))
    if not set(found.tolist()) <= set(known):
        raise DatasetError(f"In {source}, y holds a label that classes does not name.")
    numbers = np.array([known.index(label) for label in found.tolist()], np.int64)
    return numbers[inverse], tuple(names)
