"""Fixtures of the integration tests: one thread, a hub in memory, and entities on it."""

import pytest
import torch

import kuber


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hub():
    return kuber.memory_hub()


@pytest.fixture
def enter(hub, tmp_path):
    made = []

    def enter(name, model, **more):
        fields = {"hub": hub, "folder": tmp_path / name, "formats": ("weights",)} | more
        entity = kuber.Entity(name, model=model, **fields)
        made.append(entity)
        return entity

    yield enter
    for entity in made:
        entity.close()
