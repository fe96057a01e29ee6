"""Arrays of one's own, from an .npz file or an installed package."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kuber.data.decoded import DecodedArrays, Numbers
from kuber.data.partition import stratified
from kuber.errors import DatasetError

TEST_SHARE = 0.2
_SMALLEST = 20  # samples
_NAMES = ("x", "y", "classes", "x_test", "y_test")


def read(path: Path) -> tuple[DecodedArrays, tuple[str, ...]]:
    """The arrays `x` and `y` in a file, split 80 to 20, and the class names (`classes`, or those in `y`).

    `x`: uint8 or float of shape (n, height, width), (n, height, width, 1 or 3), (n, channels, height, width) or
    (n, features). `y`: class numbers, or names. Raises DatasetError with one sentence on what is wrong.
    """
    return split(path, _arrays(path))


def read_whole(path: Path) -> tuple[Numbers, NDArray[np.int64], tuple[str, ...]]:
    """All samples of a file as `read` takes it, channels first, their class numbers, and the class names."""
    held = _arrays(path)
    x = _samples(path, held["x"])
    if held["y"].ndim != 1 or len(x) != len(held["y"]) or not len(x):
        raise DatasetError(f"In {path}, y must hold one label for each of the samples, and at least one.")
    return x, *_labels(path, held["y"], held.get("classes"))


def offered(name: str, offer: Callable[[], Any]) -> tuple[DecodedArrays, tuple[str, ...]]:
    """The same from a function that gives a mapping with `x`, `y` and perhaps `classes`, `x_test` and `y_test`."""
    source = f"The data set {name!r}"
    try:
        given = dict(offer())
    except Exception as error:  # noqa: BLE001 - another's code: whatever it raises, the user is told whose it is
        raise DatasetError(f"{source} cannot be loaded: {type(error).__name__}: {error}.") from None
    try:
        held = {key: np.asarray(given[key]) for key in _NAMES if key in given}
    except ValueError:
        raise DatasetError(f"{source} gives something that is no array; its function must give x and y.") from None
    for key in ("x", "y"):
        if key not in held:
            raise DatasetError(f"{source} lacks the array {key}; its function must give x and y.")
    return split(f"the data set {name!r}", held)


def split(path: object, held: dict[str, Numbers]) -> tuple[DecodedArrays, tuple[str, ...]]:
    """Arrays checked, and split 80 to 20 unless they bring a test part; `path` says in errors where they are from."""
    own_test = {"x_test", "y_test"} & set(held)
    if len(own_test) == 1:
        raise DatasetError(f"In {path}, x_test and y_test must be given together.")
    if own_test:
        if held["x"].dtype != held["x_test"].dtype:
            raise DatasetError(f"In {path}, x and x_test must be of one dtype.")
        if not held["y_test"].size or held["y_test"].shape[:1] != held["x_test"].shape[:1]:
            raise DatasetError(f"In {path}, y_test must hold one label for each sample of x_test, and at least one.")
        # Checked as one, so that both parts have one shape, one dtype and one numbering of the classes.
        try:
            count = np.size(held["x"], 0)
            held = held | {key: np.concatenate([held[key], held[f"{key}_test"]]) for key in ("x", "y")}
        except ValueError:
            raise DatasetError(
                f"In {path}, x_test and y_test must have the shapes of x and y but for their length."
            ) from None
    x, y = _samples(path, held["x"]), held["y"]
    if y.ndim != 1 or len(x) != len(y):
        raise DatasetError(
            f"In {path}, y must hold one label for each of the {len(x)} samples; its shape is {y.shape}."
        )
    if len(y) < _SMALLEST:
        raise DatasetError(f"{path} holds {len(y)} samples; at least {_SMALLEST} are needed.")
    numbers, names = _labels(path, y, held.get("classes"))
    if own_test:
        train, test = np.split(np.arange(len(y)), [count])
    else:
        test, train = stratified(numbers, round(TEST_SHARE * len(y)), seed=0)
    arrays = DecodedArrays(train_x=x[train], train_y=numbers[train], test_x=x[test], test_y=numbers[test])
    return arrays, names


def _arrays(path: Path) -> dict[str, Numbers]:
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in _NAMES if name in file.files}
    except FileNotFoundError:
        raise DatasetError(f"There is no file {path}.") from None
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, BadZipFile, zlib.error):
        raise DatasetError(
            f"{path} is not an .npz file of plain arrays; make it with numpy.savez(path, x=..., y=...)."
        ) from None
    for name in ("x", "y"):
        if name not in held:
            raise DatasetError(f"{path} lacks the array {name}; make it with numpy.savez(path, x=..., y=...).")
    return held


def _samples(path: object, x: Numbers) -> Numbers:
    """Channels first, uint8 or float32."""
    if x.dtype != np.uint8:
        if x.dtype.kind not in "fiu":
            raise DatasetError(f"In {path}, x must hold numbers, not {x.dtype}.")
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DatasetError(f"In {path}, x holds values that are not finite.")
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise DatasetError(f"In {path}, x must hold images or vectors; its shape is {x.shape}.")
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x


def _labels(path: object, y: Numbers, classes: Numbers | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers from 0 and the name of each.

    Class numbers point into `classes` where that is given; otherwise each number found is a class of that name.
    """
    if y.dtype.kind not in "iuU":
        raise DatasetError(f"In {path}, y must hold class numbers or names, not {y.dtype}.")
    if classes is not None and classes.ndim != 1:
        raise DatasetError(f"In {path}, classes must be a list of names; its shape is {classes.shape}.")
    found, inverse = np.unique(y, return_inverse=True)
    if len(found) < 2:
        raise DatasetError(f"In {path}, y must hold at least two classes.")
    if y.dtype.kind != "U" and found[0] < 0:
        raise DatasetError(f"In {path}, y holds {found[0]}, but class numbers count from 0.")
    names = [str(name) for name in (found if classes is None else classes)]
    if len(set(names)) != len(names):
        raise DatasetError(f"In {path}, classes must name each class once.")
    if classes is None:
        return inverse.astype(np.int64), tuple(names)
    known = names if y.dtype.kind == "U" else list(range(len(names)))
    if not set(found.tolist()) <= set(known):
        raise DatasetError(f"In {path}, y holds a label that classes does not name.")
    numbers = np.array([known.index(label) for label in found.tolist()], np.int64)
    return numbers[inverse], tuple(names)
