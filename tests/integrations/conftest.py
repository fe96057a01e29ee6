"""Fixtures of the integration tests: one thread, a hub in memory, and entities on it."""

import pytest

import kuber


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
