import sys

import numpy as np
import pytest

from kuber.data import digits as source
from kuber.data.tensors import load_tensors
from kuber.errors import DatasetError


def test_the_real_digits(digits):
    assert digits.labels == tuple("0123456789")
    assert digits.train.shape == digits.test.shape == (1, 8, 8)
    assert (len(digits.train), len(digits.test)) == (1257, 540)
    assert not digits.flip
    images = digits.train.images()
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)


def test_both_parts_have_the_same_proportions_of_classes(digits):
    train, test = (np.bincount(part.labels) for part in (digits.train, digits.test))
    assert np.abs(test / (train + test) - 540 / 1797).max() < 0.01


def test_mean_and_deviation_are_those_of_the_training_part(digits):
    pixels = digits.train.images() / 255
    assert digits.mean[0] == pytest.approx(pixels.mean(), abs=1e-7)
    assert digits.std[0] == pytest.approx(pixels.std(), abs=1e-7)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DatasetError, match=r"pip install 'kuber\[digits\]'"):
        source.fetch()


def test_tensors_print_as_how_many_samples_of_what_shape():
    text = repr(load_tensors("digits"))
    assert text == "<Tensors: 1,257 training and 540 test samples of shape (1, 8, 8), 10 classes>"
