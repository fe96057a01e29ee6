"""Settings: where they come from, which wins, and what is refused."""

import pwd
from pathlib import Path

import pytest

from kuber.data.tensors import load_tensors
from kuber.errors import SettingsError
from kuber.experiment.world.config import read_world
from kuber.settings import PRESETS, Settings, load
from tests.fixtures.commands import called


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_study():
    settings = load(environ={})
    table = {
        "partition": "dirichlet",
        "classes_per_entity": 2,
        "dirichlet_alpha": 0.5,
        "num_rounds": 20,
        "local_epochs": 5,
        "learning_rate": 0.01,
        "common_test_size": 2000,
        "kd_temperature": 4.0,
        "kd_alpha": 0.5,
        "kd_epochs": 3,
        "num_entities": 4,
        "batch_size": 64,
        "dataset": "cifar10",
        "architecture": "cnn",
        "strategy": "kuber",
    }
    assert {name: getattr(settings, name) for name in table} == table


def test_flags_win_over_variables_over_file_over_preset(tmp_path):
    file = tmp_path / "kuber.toml"
    file.write_text("num_rounds = 3\nlocal_epochs = 3\nkd_epochs = 3\n")
    variables = {"KUBER_LOCAL_EPOCHS": "4", "KUBER_KD_EPOCHS": "4", "HOME": "/elsewhere"}
    settings = load({"kd_epochs": "5", "seed": None}, preset="quick", environ=variables)
    assert (settings.num_rounds, settings.local_epochs, settings.kd_epochs) == (3, 4, 5)
    assert settings.train_size == PRESETS["quick"]["train_size"]


def test_a_named_file_is_read_instead_of_the_one_in_the_folder(tmp_path):
    (tmp_path / "kuber.toml").write_text("seed = 1\n")
    (tmp_path / "other.toml").write_text("seed = 2\n")
    assert load(file=tmp_path / "other.toml", environ={}).seed == 2


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        ({"num_rounds": "0"}, {}, ["num_rounds", "'0'", "greater than or equal to 1"]),
        ({"num_rounds": "many"}, {}, ["num_rounds", "'many'", "integer"]),
        ({"dirichlet_alpha": "-1"}, {}, ["dirichlet_alpha"]),
        ({"dirichlet_alpha": "nan"}, {}, ["dirichlet_alpha"]),
        ({"classes_per_entity": "0"}, {}, ["classes_per_entity", "'0'"]),
        ({"kd_alpha": "1.5"}, {}, ["kd_alpha"]),
        ({"learning_rate": "inf"}, {}, ["learning_rate"]),
        ({"registry_port": "7000", "vault_port": "7000"}, {}, ["must differ"]),
        ({"vault_port": "70000"}, {}, ["vault_port"]),
        ({}, {"KUBER_NUM_RUONDS": "3"}, ["no setting", "num_ruonds"]),
        ({}, {"KUBER_SEED": "-1"}, ["seed"]),
    ],
)
def test_the_impossible_is_refused_in_one_sentence(flags, variables, words):
    with pytest.raises(SettingsError) as caught:
        load(flags, environ=variables)
    message = caught.value.message
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["num_rounds = ", "unknown = 1", "num_rounds = 2.5", "[learning]\nrate = 1"])
def test_a_wrong_file_is_refused(tmp_path, text):
    (tmp_path / "kuber.toml").write_text(text)
    with pytest.raises(SettingsError):
        load(environ={})


def test_a_missing_file_and_an_unknown_preset_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load(file=tmp_path / "none.toml", environ={})
    with pytest.raises(SettingsError, match="choose from: quick"):
        load(preset="qiuck", environ={})


@pytest.mark.parametrize("name", ["study", "study-long"])
def test_the_presets_of_comparisons_have_a_schedule_and_keep_what_they_were(name):
    """Without a preset the rate stays that of the proof of concept, constant."""
    now, before = (load(preset=preset, environ={}).model_dump() for preset in (name, f"{name}-constant"))
    assert {key for key in now if now[key] != before[key]} == {"learning_rate", "learning_rate_schedule"}
    assert now["learning_rate_schedule"] == "cosine"
    assert (before["learning_rate"], before["learning_rate_schedule"]) == (0.01, "constant")
    assert before["learning_rate"] == Settings().learning_rate
    assert Settings().learning_rate_schedule == "constant"


def test_settings_stand_still():
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 3  # type: ignore[misc]


def test_a_preset_gives_upper_bounds_and_the_user_exact_sizes(tmp_path):
    assert load(preset="quick", environ={}).is_from_preset("train_size")
    assert not load({"train_size": 8000}, preset="quick", environ={}).is_from_preset("train_size")
    assert not load(preset="quick", environ={"KUBER_TRAIN_SIZE": "8000"}).is_from_preset("train_size")
    assert not load(environ={}).is_from_preset("train_size")
    (tmp_path / "kuber.toml").write_text("train_size = 8000\n")
    assert not load(preset="quick", environ={}).is_from_preset("train_size")


@pytest.fixture
def no_home(monkeypatch):
    """Let this user have no home directory, as in a container with an arbitrary user id."""

    def unknown(_):
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_directory_a_default_is_one_sentence(no_home):
    with pytest.raises(SettingsError) as caught:
        load(environ={})
    assert caught.value.message == (
        "The setting cache_dir cannot be '~/.cache/kuber': this user has no home directory; set the variable HOME, "
        "or give a full path."
    )
    assert load({"cache_dir": "/cache"}, environ={}).cache_dir == Path("/cache")


@pytest.mark.parametrize("name", ["data_dir", "runs_dir"])
def test_the_home_directory_of_nobody_is_one_sentence(name):
    with pytest.raises(SettingsError, match=f"^The setting {name} cannot be '~nobody-here/x': this user has no home"):
        load({name: "~nobody-here/x"}, environ={})


@pytest.mark.parametrize(
    "command",
    [
        ["knowledge", "list", "--admin-token", "~/token"],
        ["registry", "--port", "0", "--data", "~/registry"],
        ["registry", "--port", "0", "--data", "registry", "--secret", "~/secret"],
        ["vault", "--port", "0", "--data", "~/vault"],
        ["vault", "--port", "0", "--data", "vault", "--secret", "~/secret"],
        ["run", "--dataset", "digits"],
    ],
    ids=" ".join,
)
def test_without_a_home_directory_a_command_ends_with_one_sentence(no_home, command):
    done = called(*command)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert "this user has no home directory; set the variable HOME, or give a full path" in sentence


@pytest.mark.parametrize(
    "use",
    [
        lambda: load_tensors("digits"),
        lambda: load_tensors("~/data.npz", cache_dir=Path("cache")),
        lambda: read_world("~/world.toml"),
    ],
    ids=["folder of data sets", "data set", "world"],
)
def test_without_a_home_directory_a_path_is_one_sentence(no_home, use):
    with pytest.raises(SettingsError, match=r"^The path ~/\S+ cannot be used: this user has no home directory; set"):
        use()
