"""What no page describes fails the build."""

import re
from pathlib import Path

import pytest
import typer

from kuber.cli.app import app
from kuber.domain.event import KINDS
from kuber.errors import all_errors
from kuber.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands() -> list[str]:
    return sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_kind_has_a_row(kind):
    assert f"| `{kind}` |" in page("docs/events.md")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_row_with_its_default(name):
    default = Settings.model_fields[name].default
    shown = "-" if default is None else str(default)
    assert re.search(rf"^\| `{name}` \| {re.escape(shown)} \|", page("README.md"), re.MULTILINE)


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_a_row(error):
    assert f"| `{error.__name__}` | `{error.code}` |" in page("docs/errors.md")


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command):
    assert f"`kuber {command}" in page("README.md")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_map_of_layers_is_the_checked_one():
    """The layers drawn in docs/architecture.md are those that import-linter holds."""
    configured = re.search(r"^layers = \[(.*?)\]", page("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert configured is not None
    checked = re.findall(r'"([^"]+)"', configured[1])
    drawn = page("docs/architecture.md")
    positions = [re.search(rf"^{re.escape(layer)}( |$)", drawn, re.MULTILINE) for layer in checked]
    assert all(positions)
    starts = [position.start() for position in positions if position]
    assert starts == sorted(starts)
