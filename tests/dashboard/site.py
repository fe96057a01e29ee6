"""A hub with real entities, and the dashboard as a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kuber.domain.auth import OPERATOR_TOKEN_FILE
from tests.fixtures.commands import Command, serving
from tests.fixtures.hub import Hub, running_hub

# Large steps: an entity absorbs only models that are better than chance.
LEARNING = ("--dataset", "digits", "--architecture", "mlp", "--num-entities", "3", "--num-rounds", "3")
LEARNING += ("--local-epochs", "2", "--learning-rate", "0.1", "--batch-size", "16")


@dataclass(frozen=True)
class World:
    """A hub, and the dashboard that shows it."""

    hub: Hub
    url: str  # of the dashboard
    folder: Path


def learn(hub: Hub, folder: Path, entities: int) -> None:
    """Run real entities in parallel, from their first round to their last."""
    arguments = [*LEARNING, "--runs-dir", str(folder / "entities"), "--registry", hub.registry, "--vault", hub.vault]
    started = [Command("entity", *arguments, str(index), folder=folder) for index in range(entities)]
    for command in started:
        _, errors = command.communicate()
        assert command.returncode == 0, errors


@contextmanager
def dashboard(folder: Path, *options: str) -> Iterator[str]:
    """Run a dashboard; yield its URL."""
    log = folder / "dashboard.log"
    with serving("dashboard", "--port", "0", "--stop-with-stdin", *options, folder=folder, log=log) as url:
        yield url
    failed = [line for line in log.read_text(encoding="utf-8").splitlines() if '"level": "error"' in line]
    assert not failed, failed


def shows(hub: Hub, folder: Path) -> tuple[str, ...]:
    """Return the options for a dashboard of this hub, whose data are in the folder."""
    token = folder / "registry" / OPERATOR_TOKEN_FILE
    return ("--registry", hub.registry, "--vault", hub.vault, "--admin-token", str(token))


@pytest.fixture(scope="session")
def world(process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub with two entities that learned from each other. Tests share it: add to it, but remove nothing."""
    folder = tmp_path_factory.mktemp("dashboard")
    with running_hub(folder, "--open-enrolment", "--requests-per-minute", "0") as hub:
        learn(hub, folder, 2)
        with dashboard(folder, *shows(hub, folder)) as url:
            yield World(hub=hub, url=url, folder=folder)


@pytest.fixture(scope="module")
def quiet(process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub without deliveries."""
    folder = tmp_path_factory.mktemp("quiet")
    with running_hub(folder, "--open-enrolment") as hub, dashboard(folder, *shows(hub, folder)) as url:
        yield World(hub=hub, url=url, folder=folder)
