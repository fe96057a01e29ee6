"""Plugins of a package that is installed: its metadata are on sys.path."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from kuber import plugins
from kuber.data.datasets import load_dataset
from kuber.data.partition import Split, divide
from kuber.entity.strategy_loader import strategy_named
from kuber.errors import DatasetError, IncompatibleKnowledgeError, SettingsError
from kuber.experiment.scenario import load_scenario
from kuber.learning.architectures import describe, initial_weights, make_network
from kuber.learning.compatibility import can_load_by_name
from kuber.settings import load as settings_of

MODULE = """
import numpy as np

def halves(labels, split):
    return np.array_split(np.arange(len(labels)), split.entities)

def twice(labels, split):
    return [np.arange(len(labels))] * split.entities

def single(labels, split):
    return [np.arange(len(labels))]

def floats(labels, split):
    return [np.array([0.5])] * split.entities

def stripes():
    draws = np.random.default_rng(0)
    y = draws.integers(0, 3, 200)
    return {"x": (draws.random((200, 6)) + y[:, None]).astype("float32"), "y": y, "classes": ["a", "b", "c"]}

def empty():
    return {"x": np.zeros((3, 2))}

def offline():
    raise OSError("the share is offline")

NUMBER = 3

def tiny(input_shape, classes, width=4):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], width), nn.ReLU(), nn.Linear(width, classes))

def no_network(**arguments):
    return 3

def own_strategy():
    from kuber.strategies import Local
    class Quiet(Local):
        pass
    return Quiet(name="quiet")

def no_strategy():
    return object()

def silent():
    class Silent:
        name, common_start = "silent", False
        local_phase = before = publishes = after = choose = shares = keep = lambda *arguments: None
    return Silent()

def hasty():
    strategy = silent()
    strategy.waiting = object()
    return strategy
"""
POINTS = """
[kuber.partitions]
halves = kuber_test_plugin:halves
twice = kuber_test_plugin:twice
single = kuber_test_plugin:single
floats = kuber_test_plugin:floats
number = kuber_test_plugin:NUMBER
gone = kuber_test_plugin:gone
[kuber.datasets]
stripes = kuber_test_plugin:stripes
empty = kuber_test_plugin:empty
offline = kuber_test_plugin:offline
[kuber.architectures]
tiny = kuber_test_plugin:tiny
no-network = kuber_test_plugin:no_network
[kuber.strategies]
quiet = kuber_test_plugin:own_strategy
nothing = kuber_test_plugin:no_strategy
"""
LABELS = np.repeat(np.arange(4), 25)
SPLIT = Split(entities=4, alpha=0.5, classes=2, seed=0, minimum=5)


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    def install(name):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (folder / "entry_points.txt").write_text(POINTS, encoding="utf-8")

    install("kuber_test_plugin")
    (tmp_path / "kuber_test_plugin.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield install
    sys.modules.pop("kuber_test_plugin", None)


def test_a_partition_from_a_plugin():
    assert [part.tolist() for part in divide("halves", LABELS, SPLIT)] == np.arange(100).reshape(4, 25).tolist()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("twice", "returned a row twice"),
        ("single", "for each of 4 entities"),
        ("floats", "must return row numbers"),
        ("number", "of kuber_test_plugin is not a function"),
        ("gone", "of kuber_test_plugin cannot be imported: AttributeError"),
        ("nobody's", "choose from: dirichlet, shards, iid, quantity, mixture, floats, gone, halves"),
    ],
)
def test_an_invalid_partition_is_refused_in_a_sentence(name, sentence):
    with pytest.raises(SettingsError, match=sentence):
        divide(name, LABELS, SPLIT)


def test_a_data_set_from_a_plugin(tmp_path):
    found = load_dataset("stripes", cache_dir=tmp_path / "cache")
    assert (found.name, found.labels, found.train.shape) == ("stripes", ("a", "b", "c"), (6,))
    assert len(found.train) + len(found.test) == 200


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "lacks the array y"),
        ("offline", "cannot be loaded: OSError: the share is offline"),
        ("nobody's", "choose from cifar10, fashion-mnist, digits, empty, offline, stripes, or a path"),
    ],
)
def test_an_invalid_data_set_is_refused_in_a_sentence(name, sentence, tmp_path):
    with pytest.raises(DatasetError, match=sentence):
        load_dataset(name, cache_dir=tmp_path)


def test_a_name_that_two_packages_offer_is_refused(installed):
    installed("another_plugin")
    with pytest.raises(SettingsError, match="another_plugin and kuber_test_plugin both offer 'halves'"):
        plugins.find(plugins.PARTITIONS, "halves")


ARGUMENTS = {"input_shape": (6,), "classes": 3}


def test_an_architecture_from_a_plugin_is_made_from_its_name_and_typed_arguments():
    wide = describe("tiny", ARGUMENTS | {"width": 9})
    assert wide.manifest["1.weight"].shape == (9, 6)
    assert set(initial_weights(wide, 0)) == set(wide.manifest)
    assert can_load_by_name(wide)
    assert not can_load_by_name(replace(wide, arguments={**ARGUMENTS, "width": 8}))


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("tiny", {"classes": 3}, "does not take these arguments: TypeError"),
        ("no-network", {}, "does not return a torch.nn.Module"),
        ("nobody's", ARGUMENTS, "known: cnn, lenet, resnet20, mlp, no-network, tiny"),
    ],
)
def test_an_invalid_architecture_is_refused_in_a_sentence(name, arguments, sentence):
    with pytest.raises(IncompatibleKnowledgeError, match=sentence):
        make_network(name, arguments)


def test_a_strategy_from_a_plugin():
    assert strategy_named("quiet").name == "quiet"
    assert strategy_named("kuber_test_plugin:own_strategy").name == "quiet"


def test_a_strategy_need_not_explain():
    silent = strategy_named("kuber_test_plugin:silent")
    assert (silent.name, hasattr(silent, "explain")) == ("silent", False)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "has no 'common_start'"),
        ("kuber_test_plugin:hasty", "has no 'waits'"),
        ("nobody's", "choose from: kuber, exchange, merge, vanilla, local, local-balanced, nothing, quiet, or give"),
        ("kuber_test_plugin:gone", "cannot be imported: AttributeError"),
        ("nowhere_at_all:x", "cannot be imported: ModuleNotFoundError"),
        ("kuber_test_plugin:offline", "cannot be created: OSError: the share is offline"),
    ],
)
def test_an_invalid_strategy_is_refused_in_a_sentence(name, sentence):
    with pytest.raises(SettingsError, match=sentence):
        strategy_named(name)


def test_a_run_may_use_plugins(tmp_path):
    settings = settings_of(
        {
            "dataset": "stripes",
            "strategy": "quiet",
            "architecture": "tiny",
            "num_entities": 2,
            "batch_size": 8,
            "cache_dir": tmp_path,
        },
        environ={},
    )
    scenario = load_scenario(settings)
    assert scenario.strategy.name == "quiet"
    assert {architecture.name for architecture in scenario.architectures} == {"tiny"}
