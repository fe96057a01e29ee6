"""What no page describes fails the build."""

import re
import subprocess
import sys
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


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path)], ids=lambda path: path.name)
def test_python_in_the_pages_is_python(path):
    for number, block in enumerate(blocks(path)):
        compile(block, f"{path.name}, block {number}", "exec")


@pytest.mark.parametrize("name", ["own-loop.md", "portable.md", "architectures.md"])
def test_python_in_these_pages_runs_as_it_stands(name, tmp_path):
    code = "\n".join(blocks(ROOT / "docs" / name))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_site_is_built_and_every_link_and_anchor_leads_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not contain an anchor" not in done.stderr
    api = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert "One whole decision round" in api
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {path.parent.name for path in tmp_path.glob("*/index.html")} >= pages
