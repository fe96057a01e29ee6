"""Every setting is a flag of `kuber run`, and reaches the command as a checked value."""

import pytest
import typer
from typer.testing import CliRunner

from kuber.cli.app import app
from kuber.cli.setting_options import with_settings
from kuber.errors import SettingsError
from kuber.settings import Settings


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Runs a command that takes settings; returns what it was called with."""
    monkeypatch.chdir(tmp_path)
    got = []
    small = typer.Typer()

    @small.command()
    @with_settings()
    def command(settings: Settings | None, resume: str | None = None) -> None:
        got.append((settings, resume))

    def told(*arguments: str):
        result = CliRunner().invoke(small, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return got.pop()

    return told


def test_flags_become_settings(told):
    settings, _ = told("--num-rounds", "3", "--dirichlet-alpha", "0.1", "--num-entities", "7", "--dataset", "digits")
    assert (settings.num_rounds, settings.dirichlet_alpha, settings.num_entities) == (3, 0.1, 7)
    assert settings.model_fields_set == {"num_rounds", "dirichlet_alpha", "num_entities", "dataset"}


def test_preset_and_file_are_read(told, tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 9\n")
    settings, _ = told("--preset", "quick", "--config", "mine.toml")
    assert (settings.seed, settings.num_rounds) == (9, 8)


def test_resuming_takes_no_settings(told):
    assert told("--resume", "somewhere") == (None, "somewhere")
    for more in (["--seed", "1"], ["--preset", "quick"], ["--config", "x.toml"]):
        with pytest.raises(SettingsError, match="give no others"):
            told("--resume", "somewhere", *more)


@pytest.mark.parametrize("command", ["run", "entity", "registry", "vault"])
def test_help_reads_well_in_80_columns(command):
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_of_run(name):
    result = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert f"--{name.replace('_', '-')}" in result.output
