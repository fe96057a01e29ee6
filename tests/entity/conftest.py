import pytest

import kuber

from .scripted_entities import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def hub():
    return kuber.memory_hub()


@pytest.fixture
def make_entity(hub, tmp_path):
    """Make entities with these fields on a hub in memory, each in a folder of its own; they are closed at the end."""
    made = []

    def make_entity(name, **fields):
        usual = {"hub": hub, "formats": ("weights",), "folder": tmp_path / str(name)[:50]}
        made.append(kuber.Entity(name, **(usual | fields)))
        return made[-1]

    yield make_entity
    for entity in made:
        entity.close()
