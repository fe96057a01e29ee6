"""What `pip install kuber` alone can do, and what its commands answer where an extra is missing."""

import numpy as np
import pytest
from packaging.requirements import Requirement

from kuber import extras
from kuber.errors import SettingsError
from tests.fixtures.commands import called, finished
from tests.fixtures.extras import closure, only, requirements

COMMANDS = {
    ("registry", "--port", "0"): ("hub",),
    ("vault", "--port", "0"): ("hub",),
    ("hub", "backup", "copies"): ("hub",),
    ("hub", "restore", "copies"): ("hub",),
    ("run", "--dataset", "digits"): ("hub", "plots"),
    ("run", "--dataset", "digits", "--dashboard"): ("dashboard",),
    ("simulate", "--dataset", "digits"): ("simulator", "plots"),
    ("compare", "--dataset", "digits"): ("simulator", "plots"),
    ("dashboard", "--admin-token", "token"): ("hub", "dashboard"),
}


@pytest.mark.parametrize(
    ("command", "extra", "package"),
    [
        (command, extra, package)
        for command, needed in COMMANDS.items()
        for extra in needed
        for package in extras.PACKAGES[extra]
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_without_a_package_a_command_names_its_extra(hide, tmp_path, monkeypatch, command, extra, package):
    hide(package)
    monkeypatch.chdir(tmp_path)
    done = called(*command)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.endswith(f" needs {package}, not installed: pip install 'kuber[{extra}]'.")
    assert not list(tmp_path.iterdir())


def test_all_that_is_missing_is_named_at_once(hide):
    hide("alembic", "limits", "matplotlib")
    with pytest.raises(SettingsError) as refused:
        extras.require("A run", "hub", "plots")
    assert refused.value.message == (
        "A run needs alembic and limits and matplotlib, not installed: pip install 'kuber[hub,plots]'."
    )


@pytest.mark.parametrize("extra", extras.PACKAGES)
def test_the_packages_of_an_extra_are_those_that_it_installs(extra):
    installed = {Requirement(line).name.replace("-", "_") for line in requirements(extra)}
    others = set(extras.PACKAGES["plots"] if extra == "simulator" else ())
    others |= set(extras.PACKAGES["hub"] if extra == "dashboard" else ())
    assert installed == set(extras.PACKAGES[extra]) | others


ALONE = """
import sys
import torch, kuber

url, vault = sys.argv[1:]
points = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
data = points, (points[:, 0] > 0).long()
task = kuber.Task(name="sides", labels=("left", "right"), input_shape=(2,), test_set=kuber.test_set_digest(data))
for hub in ({"hub": kuber.memory_hub()}, {"hub": url, "vault": vault}):
    for name in ("teacher", "student"):
        model = torch.nn.Linear(2, 2)
        folder = f"{len(hub)} {name}"
        with kuber.Entity(name, model=model, task=task, validation=data, folder=folder, **hub) as entity:
            teachers = entity.step(torch.optim.SGD(model.parameters(), 0.1))
            print(name, entity.publish(), len(entity.discover()))
"""


@pytest.mark.process
def test_the_core_alone_joins_a_hub_and_runs_entities_on_it(tmp_path, own_hub):
    """And loads nothing that only a hub, plots or the simulator need."""
    hub = own_hub("--open-enrolment")
    core = closure(*requirements())
    assert not core & {"fastapi", "uvicorn", "sqlalchemy", "alembic", "matplotlib", "greenlet", "scikit-learn"}
    done = finished(hub.registry, hub.vault, program=only(core, ALONE), preload=(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["teacher", "student"] * 2

    services = ("--registry", hub.registry, "--vault", hub.vault)
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=draws.integers(0, 256, (200, 1, 4, 4), dtype=np.uint8), y=np.arange(200) % 2)
    settings = ("--dataset", "own.npz", "--architecture", "mlp", "--num-entities", "2", "--num-rounds", "1")
    settings += ("--batch-size", "16")
    done = finished("entity", "0", *settings, *services, program=only(core), preload=(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    key = ("--identity", "identities/0")
    done = finished("knowledge", "list", *services[:2], *key, program=only(core), preload=(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "own" in done.stdout
