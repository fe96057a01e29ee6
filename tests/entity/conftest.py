import pytest

from .scripted_entities import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)
