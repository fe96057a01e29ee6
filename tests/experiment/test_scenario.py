"""A scenario is the same wherever it is loaded, and its test sets are disjoint."""

import numpy as np
import pytest

from kuber.errors import SettingsError
from kuber.experiment.run_folder import open_run, settings_of
from kuber.experiment.scenario import MIN_BATCHES, load_scenario
from kuber.settings import PRESETS, load


@pytest.fixture
def settings(tmp_path):
    def settings(**flags):
        given = {"dataset": "digits", "architecture": "mlp", "batch_size": 16, "cache_dir": str(tmp_path)}
        return load(given | flags, environ={}, file=None)

    return settings


def test_the_same_settings_give_the_same_scenario(settings):
    first, other = load_scenario(settings(), verify=True), load_scenario(settings())
    assert first.task == other.task
    assert first.architectures == other.architectures
    for mine, theirs in zip(first.private, other.private, strict=True):
        assert np.array_equal(mine.rows, theirs.rows)


def test_the_test_sets_are_disjoint_complete_and_independent_of_the_seed(settings):
    first, other = load_scenario(settings()), load_scenario(settings(seed=1))
    assert first.task.test_set == other.task.test_set == first.common.digest()
    common, held_out = set(first.common.rows.tolist()), set(first.held_out.rows.tolist())
    assert not common & held_out
    assert len(common) + len(held_out) == len(first.dataset.test)
    assert not all(np.array_equal(a.rows, b.rows) for a, b in zip(first.private, other.private, strict=True))


def test_private_data_are_disjoint_and_of_the_requested_size(settings):
    scenario = load_scenario(settings(train_size=600))
    rows = np.concatenate([part.rows for part in scenario.private])
    assert len(rows) == len(set(rows.tolist())) == 600
    assert min(len(part) for part in scenario.private) >= MIN_BATCHES * 16
    assert [sum(scenario.class_counts(index)) for index in range(4)] == [len(part) for part in scenario.private]


@pytest.mark.parametrize("partition", ["shards", "iid", "quantity"])
def test_the_requested_partition_is_made(settings, partition):
    flags = {"partition": partition, "num_entities": 5, "classes_per_entity": 2, "dirichlet_alpha": 5}
    first, other = load_scenario(settings(**flags)), load_scenario(settings(**flags))
    assert all(
        np.array_equal(mine.rows, theirs.rows) for mine, theirs in zip(first.private, other.private, strict=True)
    )
    classes = [np.count_nonzero(first.class_counts(entity)) for entity in range(5)]
    assert classes == [2 if partition == "shards" else 10] * 5


@pytest.mark.parametrize(("given", "size"), [({}, 108), ({"common_test_size": 200}, 200)])
def test_a_fifth_of_a_small_test_set_is_common_by_default(settings, given, size):
    assert len(load_scenario(settings(**given)).common) == size


@pytest.fixture
def small_npz(tmp_path):
    """1,000 grey images of 28x28 pixels and 10 classes, as Fashion-MNIST's."""
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "small.npz",
        x=generator.integers(0, 256, (1000, 28, 28), np.uint8),
        y=np.arange(1000) % 10,
    )
    return str(tmp_path / "small.npz")


@pytest.mark.parametrize(("dataset", "train", "common"), [("digits", 1257, 108), ("npz", 800, 40)])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_a_smaller_data_set(preset, dataset, train, common, small_npz, tmp_path):
    name = small_npz if dataset == "npz" else dataset
    flags = {"dataset": name, "architecture": "mlp", "cache_dir": str(tmp_path), "runs_dir": str(tmp_path / "runs")}
    folder, settings = open_run(load(flags, preset=preset, environ={}), None)
    scenario = load_scenario(settings)
    assert sum(map(len, scenario.private)) == scenario.settings.train_size == train
    assert len(scenario.common) == scenario.settings.common_test_size == common
    recorded = settings_of(folder)
    assert (recorded.train_size, recorded.common_test_size) == (train, common)
    assert recorded.num_rounds == PRESETS[preset]["num_rounds"]
    assert load_scenario(recorded).task == scenario.task


def test_a_preset_is_not_lowered_for_a_larger_data_set(small_npz, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS["quick"], "train_size", 600)
    settings = load(
        {"dataset": small_npz, "architecture": "mlp", "cache_dir": str(tmp_path)}, preset="quick", environ={}
    )
    assert load_scenario(settings).settings.train_size == 600


def test_a_size_that_the_user_gave_is_never_lowered(settings):
    with pytest.raises(SettingsError, match=r"^train_size is 2000, but digits has only 1257 training samples\.$"):
        load_scenario(settings(train_size=2000))
    given = load(
        {"dataset": "digits", "cache_dir": str(settings().cache_dir)},
        preset="quick",
        environ={"KUBER_TRAIN_SIZE": "8000"},
    )
    with pytest.raises(SettingsError, match="train_size is 8000"):
        load_scenario(given)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"train_size": 2000}, "only 1257"),
        ({"common_test_size": 540}, "held out"),
        ({"architecture": "lenet"}, "choose another architecture"),
        ({"num_entities": 100}, "100 entities"),
        ({"dirichlet_alpha": 1e-6, "num_entities": 30}, "larger dirichlet_alpha"),
        ({"partition": "shrads"}, "no partition 'shrads'"),
        ({"partition": "shards", "classes_per_entity": 11}, "lower classes_per_entity"),
    ],
)
def test_an_impossible_split_is_refused_in_one_sentence(settings, flags, words):
    with pytest.raises(SettingsError, match=words):
        load_scenario(settings(**flags))


def test_an_unknown_partition_is_refused_before_the_data_are_loaded(settings):
    with pytest.raises(SettingsError, match="no partition 'shrads'"):
        load_scenario(settings(partition="shrads", dataset="nowhere.npz"))


@pytest.mark.parametrize(("pace", "equal"), [("rounds", True), ("samples", False)])
def test_local_phases_take_equally_long_or_samples_do(settings, pace, equal):
    scenario = load_scenario(settings(pace=pace))
    speeds = [entity.speed for entity in scenario.world.entities]
    seconds = [len(part) / speed for part, speed in zip(scenario.private, speeds, strict=True)]
    assert (max(seconds) - min(seconds) < 1e-9) is equal
    assert (len(set(speeds)) == 1) is not equal


def test_architectures_go_to_entities_in_turn(settings):
    names = [
        architecture.name
        for architecture in load_scenario(settings(architecture="mlp, resnet20", num_entities=5)).architectures
    ]
    assert names == ["mlp", "resnet20", "mlp", "resnet20", "mlp"]


def test_an_unknown_architecture_is_refused_with_the_known_ones(settings):
    with pytest.raises(SettingsError, match="no architecture 'vgg' here; known: cnn, lenet, resnet20, mlp"):
        load_scenario(settings(architecture="mlp,vgg"))


def test_an_unknown_strategy_is_refused_with_the_known_ones(settings):
    with pytest.raises(SettingsError, match="no strategy 'magic'; choose from: kuber, exchange, merge, vanilla"):
        load_scenario(settings(strategy="magic"))
