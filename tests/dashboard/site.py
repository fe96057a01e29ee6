"""A hub with real entities, and the dashboard as a process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kuber.domain.auth import OPERATOR_TOKEN_FILE
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
    command = [sys.executable, "-m", "kuber", "entity", *LEARNING, "--runs-dir", str(folder / "entities")]
    command += ["--registry", hub.registry, "--vault", hub.vault]
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, str(index)], **options) for index in range(entities)]  # type: ignore[call-overload]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@contextmanager
def dashboard(folder: Path, *options: str) -> Iterator[str]:
    """Run a dashboard; yield its URL."""
    command = [sys.executable, "-m", "kuber", "dashboard", "--port", "0", "--stop-with-stdin", *options]
    log = folder / "dashboard.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        words = process.stdout.readline().split()
        assert words, f"the dashboard did not start: {log.read_text(encoding='utf-8')}"
        yield words[-1]
    finally:
        process.stdin.close()
        assert process.wait(20) == 0, log.read_text(encoding="utf-8")
        process.stdout.close()
    failed = [line for line in log.read_text(encoding="utf-8").splitlines() if '"level": "error"' in line]
    assert not failed


def shows(hub: Hub, folder: Path) -> tuple[str, ...]:
    """Return the options for a dashboard of this hub, whose data are in the folder."""
    token = folder / "registry" / OPERATOR_TOKEN_FILE
    return ("--registry", hub.registry, "--vault", hub.vault, "--admin-token", str(token))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub with two entities that learned from each other. Tests share it: add to it, but remove nothing."""
    folder = tmp_path_factory.mktemp("dashboard")
    with running_hub(folder, "--open-enrolment", "--requests-per-minute", "0") as hub:
        learn(hub, folder, 2)
        with dashboard(folder, *shows(hub, folder)) as url:
            yield World(hub=hub, url=url, folder=folder)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub without deliveries."""
    folder = tmp_path_factory.mktemp("quiet")
    with running_hub(folder, "--open-enrolment") as hub, dashboard(folder, *shows(hub, folder)) as url:
        yield World(hub=hub, url=url, folder=folder)
