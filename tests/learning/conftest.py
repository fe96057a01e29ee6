"""Fixtures of the learning tests: one thread for each test, and a float32 runtime."""

from collections.abc import Iterator

import pytest
import torch

from kuber.learning.runtime import Runtime


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums are taken in one order and other tests keep their cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(device="cpu", precision="float32", threads=1, channels_last=True)
