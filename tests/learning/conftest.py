"""The runtime of the learning tests."""

import pytest

from kuber.learning.runtime import Runtime


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(device="cpu", precision="float32", threads=1, channels_last=True)
