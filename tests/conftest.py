"""What every test may use: the fixtures of `tests/fixtures`, and the long forms."""

import sys

import hypothesis
import pytest

pytest_plugins = (
    "tests.fixtures.certificates",
    "tests.fixtures.processes",
    "tests.fixtures.databases",
    "tests.fixtures.durability",
    "tests.fixtures.extras",
    "tests.fixtures.hub",
    "tests.fixtures.s3",
    "tests.fixtures.samples",
    "tests.fixtures.scripted_service",
)


# Time limits belong in benchmarks: a busy machine takes as long as it takes.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long forms too, which take hours: `make soak`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms are tests of their own; without --soak they are not selected."""
    if not config.getoption("--soak"):
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


def pytest_collection_finish() -> None:
    """Compute on one thread, so that sums are taken in one order and other workers keep their cores."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
