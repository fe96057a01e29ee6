"""One thread for every test of learning, and the runtime they compute with."""

from collections.abc import Iterator

import pytest
import torch

from kuber.learning.runtime import Runtime


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are taken in the same order each time, and other tests keep their cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(device="cpu", precision="float32", threads=1, channels_last=True)
