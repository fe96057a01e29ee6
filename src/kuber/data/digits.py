"""The 8x8 digits that come with scikit-learn (Alpaydin and Kaynak, UCI, 1998)."""

import numpy as np

from kuber.data.decoded import DecodedArrays
from kuber.data.partition import stratified
from kuber.errors import DatasetError

LABELS = tuple("0123456789")
MEAN = (0.30575849,)
STD = (0.37611710,)
_TEST_SIZE = 540  # of 1,797


def fetch() -> DecodedArrays:
    """Return all 1,797 digits, their 17 grey values stretched to 0..255, in a fixed stratified split.

    Raises DatasetError when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DatasetError(
            "The digits come with scikit-learn, which is not installed: pip install 'kuber[digits]'."
        ) from None
    x, y = load_digits(return_X_y=True)
    images = np.round(x * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = y.astype(np.int64)
    test, train = stratified(labels, _TEST_SIZE, seed=0)
    return DecodedArrays(train_x=images[train], train_y=labels[train], test_x=images[test], test_y=labels[test])
