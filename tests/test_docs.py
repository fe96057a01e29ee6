"""Pages describe the code: every setting, command, event kind and error; their paths, links and snippets hold."""

import ast
import html
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

import kuber
from kuber.cli.app import app
from kuber.domain.event import KINDS
from kuber.errors import all_errors
from kuber.settings import Settings
from tests.fixtures.commands import LEARNING, finished

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "adr").glob("0*.md"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(*group: str) -> list[str]:
    command = typer.main.get_command(app)
    for name in group:
        command = command.commands[name]  # type: ignore[attr-defined]
    return sorted(command.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_kind_has_a_row(kind):
    assert f"| `{kind}` |" in page("docs/events.md")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_row_with_its_default(name):
    default = Settings.model_fields[name].default
    shown = "-" if default is None else str(default)
    assert re.search(rf"^\| `{name}` \| {re.escape(shown)} \|", page("docs/settings.md"), re.MULTILINE)


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_a_row(error):
    assert f"| `{error.__name__}` | `{error.code}` |" in page("docs/errors.md")


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_row(command):
    assert re.search(rf"^\| `kuber {command}[ `]", page("docs/commands.md"), re.MULTILINE)


@pytest.mark.parametrize("group", ["hub", "knowledge"])
def test_every_command_of_a_group_is_on_its_page(group):
    for command in commands(group):
        assert re.search(rf"`(kuber {group} )?{command}[ `]", page(f"docs/{group}.md")), command


@pytest.mark.parametrize("command", ["registry", "vault"])
def test_every_option_of_a_service_has_a_row(command):
    options = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    for option in options:
        if option.name != "help":
            assert re.search(rf"^\|[^|]*`{option.opts[0]}`", page(f"docs/{command}.md"), re.MULTILINE), option.opts[0]


def test_defaults_of_policies_are_those_of_the_code():
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| (\S+)", page("docs/strategy.md"), re.MULTILINE)
    assert rows
    for kind, field, shown in rows:
        default = getattr(getattr(kuber.strategies, kind)(), field)
        assert shown == ({False: "no", True: "yes"}[default] if isinstance(default, bool) else f"{default:g}"), field


def test_generated_parts_are_those_of_the_code():
    """`python docs/tables.py` writes the tables of modules and settings anew."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert not list(tables.stale()), "run: python docs/tables.py"


def test_readme_is_short_and_names_every_extra():
    readme = page("README.md")
    assert len(readme.splitlines()) <= 110
    extras = tomllib.loads(page("pyproject.toml"))["project"]["optional-dependencies"]
    for extra in set(extras) - {"dev", "docs"}:
        assert f"`{extra}`" in readme, extra


def test_the_table_of_changes_stays_short():
    rows = page("docs/architecture.md").partition("| to change | go to |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert 1 < len(rows.splitlines()) <= 20


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_decisions_say_context_decision_and_consequences(path):
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {path.name[:4]}: ", text)
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert f"[{path.name[:4]}]({path.name})" in page("docs/adr/index.md")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_and_folders_that_a_page_names_exist(path):
    named = re.findall(
        r"`((?:[\w.-]+/)+(?:[\w-]+\.(?:py|toml|yaml|yml|conf|txt|md))?)`", path.read_text(encoding="utf-8")
    )
    roots = [ROOT, ROOT / "src" / "kuber", path.parent]
    code = {"benchmarks", "client", "cli", "dashboard", "data", "deploy", "docs", "domain", "entity", "examples"}
    code |= {"experiment", "integrations", "learning", "services", "src", "tests", "verifier", "views", "wire"}
    for target in named:
        if target.partition("/")[0] in code:
            assert any((root / target).exists() for root in roots), f"{path.name} names {target}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
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


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path)], ids=name_of)
def test_python_in_the_pages_is_python(path):
    for number, block in enumerate(blocks(path)):
        compile(block, f"{path.name}, block {number}", "exec")


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path)], ids=name_of)
def test_names_that_snippets_take_from_kuber_exist(path):
    for node in (node for block in blocks(path) for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "kuber":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and re.fullmatch(r"kuber(\.\w+)+", ast.unparse(node)):
            value = kuber
            for name in ast.unparse(node).split(".")[1:]:
                assert hasattr(value, name), ast.unparse(node)
                value = getattr(value, name)


@pytest.mark.parametrize("name", ["own-loop.md", "portable.md", "architectures.md", "simulation.md"])
@pytest.mark.process
def test_python_in_these_pages_runs_as_it_stands(name, tmp_path):
    code = "\n".join(blocks(ROOT / "docs" / name))
    done = finished(program=("-c", code), folder=tmp_path, preload=LEARNING)
    assert done.returncode == 0, done.stderr


def test_arguments_that_the_page_on_own_loops_names_exist():
    entity = kuber.Entity
    calls = (entity, entity.fit, entity.keep_if_better, entity.predictor, entity.report, kuber.Task)
    known = {name for call in calls for name in inspect.signature(call).parameters}
    known |= {"input_ids", "attention_mask", "persistent"}  # arguments of an owner's model, and of torch
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page("docs/own-loop.md"), flags=re.DOTALL))
    assert {name for span in spans for name in re.findall(r"\b(\w+)=", span)} <= known


BANNED = re.compile(r"\b(told|tells? of|goes on|is away|learnt)\b", re.IGNORECASE)
OPENING = re.compile(r"(?:^|[|] |[.:] )\s*(?:#+ |[-*] |\d+[.] )?(?:Of|What) [a-z][^.?!|]*(?![^.?!|]*[?])(?:[.!|]|$)")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_are_plain(path):
    """No banned word, no sentence or cell that begins with "Of" or "What" without being a question, and 118 columns.

    Rows of tables may be longer, up to 400; a link that does not fit on a line may exceed it.
    """
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        limit = 400 if line.startswith("|") else 118
        assert len(line) <= limit or " " not in line.strip(), f"{path.name}:{number} has {len(line)} columns"
        if not fenced:
            assert not BANNED.search(line), f"{path.name}:{number}: {line}"
            assert not OPENING.search(line), f"{path.name}:{number}: {line}"


@pytest.mark.process
def test_the_site_is_built_and_every_link_and_anchor_leads_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not contain an anchor" not in done.stderr
    api = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert html.escape((kuber.Entity.step.__doc__ or "").partition("\n")[0], quote=False) in api
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.parent.relative_to(tmp_path) for path in tmp_path.rglob("index.html")}
    assert built >= {page.parent if page.stem == "index" else page for page in pages}
