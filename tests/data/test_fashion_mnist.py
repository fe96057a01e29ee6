import gzip

import numpy as np
import pytest

from kuber.data import fashion_mnist
from kuber.errors import DatasetError


def test_gzipped_and_plain_files(fashion_files, tmp_path):
    arrays = fashion_mnist.fetch(fashion_files.write(tmp_path))
    assert arrays.train_x.shape == (6, 1, 28, 28)
    assert arrays.test_x.shape == (4, 1, 28, 28)
    assert arrays.train_x.dtype == np.uint8
    np.testing.assert_array_equal(arrays.train_x[1, 0, 0], np.arange(784, 784 + 28) % 251)
    assert arrays.train_y.tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays.test_y.tolist() == [5, 6, 7, 8]
    assert arrays.test_y.dtype == np.int64


LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t10k-labels-idx1-ubyte", None, "lacks t10k-labels-idx1-ubyte"),
        ("t10k-labels-idx1-ubyte", b"", "not an IDX file"),
        ("t10k-labels-idx1-ubyte", LABELS[:-1], "not an IDX file"),
        ("t10k-labels-idx1-ubyte", LABELS[:6], "not an IDX file"),
        ("t10k-labels-idx1-ubyte", LABELS + b"x", "not an IDX file"),
        ("t10k-labels-idx1-ubyte", b"\1" + LABELS[1:], "not an IDX file"),
        ("t10k-images-idx3-ubyte", LABELS, "not an IDX file of 3 dimensions"),
        ("train-labels-idx1-ubyte.gz", b"not gzipped", "damaged or cannot be read"),
        ("train-labels-idx1-ubyte.gz", gzip.compress(LABELS, mtime=0)[:-9], "damaged or cannot be read"),
    ],
)
def test_missing_and_damaged_files_are_errors(fashion_files, tmp_path, name, content, sentence):
    fashion_files.write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=sentence):
        fashion_mnist.fetch(tmp_path)


def test_the_error_for_a_missing_folder_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="nowhere"):
        fashion_mnist.fetch(tmp_path / "nowhere")
    monkeypatch.setattr(fashion_mnist, "PACKAGE_FOLDER", tmp_path / "not-installed")
    with pytest.raises(DatasetError, match=r"install Debian's package dataset-fashion-mnist.*--data-dir"):
        fashion_mnist.fetch(None)
