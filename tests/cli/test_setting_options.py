"""Every setting is a flag of `kuber run`, and reaches the command as a checked value."""

from collections.abc import Iterator

import click
import pytest
import typer
from typer.testing import CliRunner

from kuber.cli.app import app
from kuber.cli.setting_options import with_settings
from kuber.errors import SettingsError
from kuber.settings import Settings


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run a command that takes settings; return the arguments it was called with."""
    monkeypatch.chdir(tmp_path)
    calls = []
    small = typer.Typer()

    @small.command()
    @with_settings()
    def command(settings: Settings | None, resume: str | None = None) -> None:
        calls.append((settings, resume))

    def call(*arguments: str):
        result = CliRunner().invoke(small, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return calls.pop()

    return call


def test_flags_become_settings(call):
    settings, _ = call("--num-rounds", "3", "--dirichlet-alpha", "0.1", "--num-entities", "7", "--dataset", "digits")
    assert (settings.num_rounds, settings.dirichlet_alpha, settings.num_entities) == (3, 0.1, 7)
    assert settings.model_fields_set == {"num_rounds", "dirichlet_alpha", "num_entities", "dataset"}


def test_preset_and_file_are_read(call, tmp_path):
    (tmp_path / "mine.toml").write_text("seed = 9\n")
    settings, _ = call("--preset", "quick", "--config", "mine.toml")
    assert (settings.seed, settings.num_rounds) == (9, 8)


def test_resuming_accepts_no_settings(call):
    assert call("--resume", "somewhere") == (None, "somewhere")
    for more in (["--seed", "1"], ["--preset", "quick"], ["--config", "x.toml"]):
        with pytest.raises(SettingsError, match="give no others"):
            call("--resume", "somewhere", *more)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


@pytest.mark.parametrize("command", [*commands(typer.main.get_command(app))], ids=" ".join)
def test_help_reads_well_in_80_columns(command):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert "..." not in result.output.replace("X,...", "").replace("[ARGS]...", "")  # nothing is cut off


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_help_of_a_setting_is_a_whole_phrase(name):
    description = Settings.model_fields[name].description
    assert description is not None
    assert description[0].isupper()
    assert description.endswith(".")
    assert not description.startswith(("Of ", "What ", "How "))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_of_run(name):
    result = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert f"--{name.replace('_', '-')}" in result.output
