"""Settings and variables that have no effect where they are given are named."""

import pytest

from kuber.data.partition import PARTITIONS
from kuber.domain.strategies import STRATEGIES
from kuber.setting_effects import EFFECTS, settings_without_effect, variables_without_effect
from kuber.settings import Settings, load


def test_the_table_has_each_setting_in_order():
    assert list(EFFECTS) == list(Settings.model_fields)


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("run", {"pace": "samples"}, "--pace has no effect on `kuber run`: only `kuber simulate`"),
        ("entity", {"speed_ratio": "2"}, "--speed-ratio has no effect on `kuber entity`"),
        ("entity", {"public_dataset": "digits"}, "only baselines"),
        ("simulate", {"fedprox_mu": "1"}, "only baselines"),
        ("simulate", {"server_momentum": "0.5"}, "only baselines"),
        ("run", {"kd_alpha": "0.1"}, "the strategy kuber has no epochs of distillation"),
        ("run", {"classes_per_entity": "3"}, "the partition dirichlet fixes no number of classes"),
        ("run", {"dirichlet_alpha": "3", "partition": "shards"}, "draws from no Dirichlet distribution"),
        ("simulate", {"threads": "3"}, "the engine"),
        ("run", {"cache_mebibytes": "3"}, "only `kuber entity` keeps pulled models"),
        ("run", {"verified_only": "true", "strategy": "local"}, "the strategy local exchanges nothing"),
        ("run", {"proxy_architecture": "mlp", "strategy": "merge"}, "the strategy merge has no proxies"),
        ("run", {"data_dir": "x", "dataset": "digits"}, "read from no folder"),
    ],
)
def test_a_setting_without_effect_is_named(command, flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (sentence,) = settings_without_effect(load(flags, environ={}), command)
    assert words in sentence


@pytest.mark.parametrize("command", ["run", "entity", "simulate"])
@pytest.mark.parametrize(
    "flags",
    [
        {"kd_alpha": "0.1", "strategy": "vanilla"},
        {"kd_alpha": "0.1", "strategy": "mine:strategy"},
        {"classes_per_entity": "3", "partition": "shards"},
        {"dirichlet_alpha": "3"},
        {"num_entities": "3", "seed": "1", "verified_only": "true"},
        {},
    ],
    ids=str,
)
def test_a_setting_with_an_effect_is_not_named(command, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings_without_effect(load(flags, preset="quick", environ={}), command) == []


def test_the_source_of_a_setting_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kuber.toml").write_text("pace = 'samples'\nhost = '127.0.0.1'\n")
    sentences = settings_without_effect(load({}, environ={"KUBER_HOST": "127.0.0.1"}), "entity")
    assert [sentence.split(" has ")[0] for sentence in sentences] == [
        "The setting pace in kuber.toml",
        "The setting KUBER_HOST",
    ]


def test_variables_that_look_as_if_an_entity_read_them_are_named():
    environ = {"KUBER_SEED": "1", "KUBER_HUB": "x", "KUBER_SOMETHING": "1", "PATH": "x"}
    environ["KUBER_LEARNING_RATE_SCHEDULE"] = "cosine"  # an owner's optimizer has its own
    sentence = variables_without_effect({"hub"}, environ)
    assert sentence == (
        "KUBER_HUB, KUBER_LEARNING_RATE_SCHEDULE, KUBER_SEED have no effect on kuber.Entity, "
        "which takes arguments, and no variables."
    )
    assert variables_without_effect({"hub"}, {"KUBER_SOMETHING": "1"}) is None


def test_the_built_in_names_of_the_conditions_exist():
    from kuber import setting_effects

    assert set(STRATEGIES) - {"vanilla"} == setting_effects._NOT_DISTILLING
    assert set(PARTITIONS) == setting_effects._NOT_DRAWING | setting_effects._NOT_BY_CLASS
