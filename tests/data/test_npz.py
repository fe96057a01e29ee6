import numpy as np
import pytest

from kuber.data.npz import read
from kuber.errors import DatasetError

N = 60
DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (N, 6, 5, 3), dtype=np.uint8)
VECTORS = DRAW.normal(size=(N, 4))
NUMBERS = np.arange(N) % 3


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return save


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (PIXELS, (3, 6, 5), np.uint8),
        (PIXELS[..., :1], (1, 6, 5), np.uint8),
        (PIXELS[..., 0], (1, 6, 5), np.uint8),
        (PIXELS.transpose(0, 3, 1, 2), (3, 6, 5), np.uint8),
        (PIXELS / 255, (3, 6, 5), np.float32),
        (PIXELS.astype(np.int64), (3, 6, 5), np.float32),
        (VECTORS, (4,), np.float32),
    ],
)
def test_images_become_channels_first_and_vectors_are_unchanged(saved, x, shape, dtype):
    arrays, _ = read(saved(x=x, y=NUMBERS))
    assert arrays.train_x.shape == (48, *shape)
    assert arrays.test_x.shape == (12, *shape)
    assert arrays.train_x.dtype == arrays.test_x.dtype == dtype


def test_samples_keep_their_labels(saved):
    arrays, _ = read(saved(x=PIXELS, y=np.arange(N) // 30))
    known = {
        image.transpose(2, 0, 1).tobytes(): label for image, label in zip(PIXELS, np.arange(N) // 30, strict=True)
    }
    for x, y in ((arrays.train_x, arrays.train_y), (arrays.test_x, arrays.test_y)):
        assert all(known.pop(image.tobytes()) == label for image, label in zip(x, y.tolist(), strict=True))
    assert not known


def test_the_split_is_fixed_and_stratified(saved):
    path = saved(x=VECTORS, y=NUMBERS)
    (first, _), (second, _) = read(path), read(path)
    np.testing.assert_array_equal(first.test_x, second.test_x)
    assert np.bincount(first.test_y).tolist() == [4, 4, 4]


def test_a_test_part_in_the_file_is_used_unchanged(saved):
    arrays, names = read(saved(x=VECTORS, y=NUMBERS, x_test=VECTORS[:5] + 1, y_test=NUMBERS[:5]))
    np.testing.assert_array_equal(arrays.train_x, VECTORS.astype(np.float32))
    np.testing.assert_array_equal(arrays.test_x, (VECTORS[:5] + 1).astype(np.float32))
    assert (arrays.test_y.tolist(), names) == ([0, 1, 2, 0, 1], ("0", "1", "2"))


@pytest.mark.parametrize(
    ("test_part", "sentence"),
    [
        ({"x_test": VECTORS[:5]}, "given together"),
        ({"x_test": VECTORS[:5], "y_test": NUMBERS[:4]}, "one label for each"),
        ({"x_test": VECTORS[:0], "y_test": NUMBERS[:0]}, "at least one"),
        ({"x_test": VECTORS[:5, :3], "y_test": NUMBERS[:5]}, "shapes of x and y"),
        ({"x_test": VECTORS[:5].astype(np.float32), "y_test": NUMBERS[:5]}, "one dtype"),
    ],
)
def test_a_test_part_that_does_not_fit_is_refused(saved, test_part, sentence):
    with pytest.raises(DatasetError, match=sentence):
        read(saved(x=VECTORS, y=NUMBERS, **test_part))


@pytest.mark.parametrize(
    ("y", "classes", "names", "numbers"),
    [
        (NUMBERS, None, ("0", "1", "2"), NUMBERS),
        (NUMBERS + 5, None, ("5", "6", "7"), NUMBERS),
        (NUMBERS.astype(np.uint8), ["a", "b", "c", "none"], ("a", "b", "c", "none"), NUMBERS),
        (np.array(["x", "z", "y"])[NUMBERS], None, ("x", "y", "z"), np.array([0, 2, 1])[NUMBERS]),
        (np.array(["x", "z", "y"])[NUMBERS], ["z", "y", "x"], ("z", "y", "x"), np.array([2, 0, 1])[NUMBERS]),
    ],
)
def test_labels_are_numbers_or_names(saved, y, classes, names, numbers):
    arrays, labels = read(saved(x=np.arange(N)[:, None], y=y, **({} if classes is None else {"classes": classes})))
    assert labels == names
    for x, found in ((arrays.train_x, arrays.train_y), (arrays.test_x, arrays.test_y)):
        np.testing.assert_array_equal(found, numbers[x[:, 0].astype(int)])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": None}, "lacks the array x"),
        ({"y": None}, "lacks the array y"),
        ({"y": NUMBERS[:-1]}, "one label for each of the 60 samples"),
        ({"y": NUMBERS[:, None]}, "one label for each of the 60 samples"),
        ({"x": np.where(VECTORS > 2, np.nan, VECTORS)}, "not finite"),
        ({"x": VECTORS * 1e300}, "not finite"),
        ({"x": np.full((N, 2), "a")}, "x must hold numbers"),
        ({"x": np.zeros(N)}, "images or vectors"),
        ({"x": np.zeros((N, 0, 3))}, "images or vectors"),
        ({"x": np.zeros((N, 1, 1, 1, 1))}, "images or vectors"),
        ({"x": np.float64(1)}, "images or vectors"),
        ({"x": VECTORS[:12], "y": NUMBERS[:12]}, "at least 20"),
        ({"y": np.zeros(N, int)}, "at least two classes"),
        ({"y": NUMBERS - 1}, "count from 0"),
        ({"y": NUMBERS / 2}, "class numbers or names"),
        ({"y": np.array([None] * N)}, "not an .npz file of plain arrays"),
        ({"classes": ["a", "b"]}, "a label that classes does not name"),
        ({"classes": ["a", "b", "b"]}, "name each class once"),
        ({"classes": [["a", "b", "c"]]}, "a list of names"),
    ],
)
def test_each_defect_is_an_error_of_one_sentence(saved, changes, sentence):
    arrays = {"x": VECTORS, "y": NUMBERS} | changes
    path = saved(**{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DatasetError, match=sentence) as caught:
        read(path)
    assert str(path) in caught.value.message


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, VECTORS)


def write_cut(path):
    np.savez_compressed(path, x=VECTORS, y=NUMBERS)
    path.write_bytes(path.read_bytes()[:-300])


def write_flipped(path):
    np.savez(path, x=VECTORS, y=NUMBERS)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write", [lambda p: p.write_bytes(b""), lambda p: p.write_text("hello"), write_npy, write_cut, write_flipped]
)
def test_another_kind_of_file_is_refused(tmp_path, write):
    path = tmp_path / "own.npz"
    write(path)
    with pytest.raises(DatasetError, match=r"not an .npz file of plain arrays"):
        read(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="There is no file"):
        read(tmp_path / "own.npz")
