"""The user's arrays, from an .npz file or a plugin."""

import logging
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

log = logging.getLogger("kuber")


def read(path: Path) -> tuple[DecodedArrays, tuple[str, ...]]:
    """Return the arrays of a file, split 80 to 20 without a test part, and the class names.

    The class names are in `classes`, or else those in `y`. `x`: uint8 or float of shape (n, height, width), (n,
    height, width, 1 or 3), (n, channels, height, width) or (n, features). `y`: class numbers, or names. Numbers are
    sorted by value, names as text. Raises DatasetError with one sentence on what is wrong.
    """
    return split_arrays(path, _read_arrays(path))


def read_whole(path: Path) -> tuple[Array, NDArray[np.int64], tuple[str, ...]]:
    """Return all samples of a file as for `read`, channels first, their class numbers, and the class names.

    Unlike for a data set that defines a task, one class is enough, and a number may be negative.
    """
    arrays = _read_arrays(path)
    x = _samples(path, arrays["x"])
    if arrays["y"].ndim != 1 or len(x) != len(arrays["y"]) or not len(x):
        raise DatasetError(f"In {path}, y must hold one label for each of the samples, and at least one.")
    return x, *_labels(path, arrays["y"], arrays.get("classes"), defines_task=False)


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
    except ValueError as error:
        if "Object arrays" in str(error):
            raise DatasetError(
                f"{path} is not an .npz file of plain arrays: it holds Python objects; save names as text, "
                "y=numpy.array(names, str)."
            ) from None
        raise _not_arrays(path) from None
    except (OSError, EOFError, TypeError, RuntimeError, BadZipFile, zlib.error):
        raise _not_arrays(path) from None
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


def _labels(
    source: object, y: Array, classes: Array | None, *, defines_task: bool = True
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class numbers from 0, and the name of each class.

    Without `classes`, each distinct label in `y` is the name of a class. With `classes`, a label is the class of that
    name; numbers that are not all names are places in `classes`.
    """
    y = _plain(source, "y", y)
    if classes is not None and classes.ndim != 1:
        raise DatasetError(f"In {source}, classes must be a list of names; its shape is {classes.shape}.")
    found, inverse = np.unique(y, return_inverse=True)
    if defines_task and len(found) < 2:
        raise DatasetError(f"In {source}, y must hold at least two classes.")
    texts = [str(label) for label in found]
    if classes is None:
        if defines_task and y.dtype.kind == "i" and found[0] < 0:
            raise DatasetError(f"In {source}, y holds {found[0]}, but class numbers count from 0.")
        return inverse.astype(np.int64), tuple(texts)
    names = [str(name) for name in _plain(source, "classes", classes)]
    if len(set(names)) != len(names):
        raise DatasetError(f"In {source}, classes must name each class once.")
    return np.array(_places(source, found, texts, names), np.int64)[inverse], tuple(names)


def _places(source: object, found: Array, texts: list[str], names: list[str]) -> list[int]:
    """Return the place in `classes` of each distinct label. Raises DatasetError for a label that is none of them."""
    by_name = [names.index(text) if text in names else None for text in texts]
    named = [place for place in by_name if place is not None]
    numbers = found.tolist() if found.dtype.kind in "iub" else []
    as_places = [int(number) for number in numbers if 0 <= number < len(names)]
    if len(named) == len(texts):
        if len(as_places) == len(texts) and as_places != named:
            log.warning("In %s, the numbers in y are taken for names in classes, not for their places.", source)
        return named
    if len(as_places) == len(texts):
        if named:
            log.warning("In %s, the numbers in y are taken for places in classes, not for names.", source)
        return as_places
    if found.dtype.kind == "i" and found[0] < 0:
        raise DatasetError(f"In {source}, y holds {found[0]}, but class numbers count from 0.")
    unknown = texts[by_name.index(None)]
    raise DatasetError(f"In {source}, y holds {unknown!r}, a label that classes does not name.")


def _plain(source: object, name: str, labels: Array) -> Array:
    """Return labels as integers, truth values or text; whole floats are integers, bytes are text."""
    kind = labels.dtype.kind
    if kind in "iubU":
        return labels
    if (
        kind == "f"
        and np.isfinite(labels).all()
        and (labels == np.floor(labels)).all()
        and (abs(labels) < 2**53).all()
    ):
        return labels.astype(np.int64)
    if kind == "S":
        try:
            return np.char.decode(labels.astype(np.bytes_), "utf-8")
        except UnicodeDecodeError:
            raise DatasetError(f"In {source}, {name} holds bytes that are not UTF-8; save it as text.") from None
    if kind == "O":
        raise DatasetError(f"In {source}, {name} holds Python objects; save names as text, numpy.array(names, str).")
    detail = "fractions or values that are not finite" if kind == "f" else str(labels.dtype)
    raise DatasetError(f"In {source}, {name} must hold class numbers or names, not {detail}.")


def _not_arrays(path: Path) -> DatasetError:
    return DatasetError(f"{path} is not an .npz file of plain arrays; make it with numpy.savez(path, x=..., y=...).")
