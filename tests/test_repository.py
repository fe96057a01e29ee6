"""The files around the code (workflow, forms, citation, changelog) parse and match the project."""

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
CHANGES = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parsed(name: str) -> Any:
    return yaml.safe_load(text(name))


def targets() -> set[str]:
    """Return the targets of the Makefile that a person may name."""
    declared = re.search(r"^\.PHONY: (.+)$", text("Makefile"), re.MULTILINE)
    assert declared is not None
    rules = set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))
    assert set(declared[1].split()) <= rules, "a phony target has no rule"
    return rules


def workflow() -> dict[str, Any]:
    return parsed(".github/workflows/test.yml")


def steps() -> list[dict[str, Any]]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def test_the_workflow_runs_existing_make_targets():
    commands = [step["run"] for step in steps() if "run" in step]
    assert {"make check", "make test"} <= set(commands)
    for command in commands:
        program, target = command.split()
        assert program == "make"
        assert target in targets(), f"the Makefile has no target {target}"


def test_the_workflow_checks_every_python_version_that_the_package_names():
    versions = workflow()["jobs"]["check"]["strategy"]["matrix"]["python"]
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert versions == named
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_the_workflow_reads_only_and_pins_its_actions():
    assert workflow()["permissions"] == {"contents": "read"}
    for step in steps():
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])


def test_dependabot_watches_folders_that_exist():
    updates = parsed(".github/dependabot.yml")
    assert updates["version"] == 2
    assert {update["package-ecosystem"] for update in updates["updates"]} == {"pip", "docker", "github-actions"}
    for update in updates["updates"]:
        assert (ROOT / update["directory"].removeprefix("/")).is_dir()
        assert update["schedule"]["interval"] in {"weekly", "monthly"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_well_formed(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)


def test_vulnerabilities_are_reported_privately():
    assert "privately" in text("SECURITY.md")
    assert "SECURITY.md" in text(".github/ISSUE_TEMPLATE/bug.yml")


def test_hooks_use_the_locked_ruff_and_installed_programs():
    locked = re.search(r"^ruff==(\S+)$", text("constraints.txt"), re.MULTILINE)
    assert locked is not None
    shared, local = parsed(".pre-commit-config.yaml")["repos"]
    assert shared["rev"] == f"v{locked[1]}"
    assert [hook["id"] for hook in shared["hooks"]] == ["ruff-check", "ruff-format"]
    for hook in local["hooks"]:
        folder, _, program = hook["entry"].rpartition("/")
        assert folder == ".venv/bin"
        assert f"$(BIN)/{program}" in text("Makefile")


def test_the_citation_is_of_this_package():
    citation = parsed("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert all(author["name"] for author in citation["authors"])


def test_editors_break_lines_where_ruff_does():
    config = configparser.ConfigParser()
    config.read_string("[top]\n" + text(".editorconfig"))
    ruff = tomllib.loads(text("pyproject.toml"))["tool"]["ruff"]
    assert config["*"].getint("max_line_length") == ruff["line-length"]
    assert config["Makefile"]["indent_style"] == "tab"


def test_the_changelog_keeps_its_form():
    """Releases are newest first, each with a date, below what is unreleased; changes stand under the six headings."""
    log = text("CHANGELOG.md")
    releases = re.findall(r"^## (.+)$", log, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", release) for release in releases[1:])
    for release in re.split(r"^## .+$", log, flags=re.MULTILINE)[1:]:
        headings = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert headings == [heading for heading in CHANGES if heading in headings]
    assert f"[{PROJECT['version']}]" in log or len(releases) == 1
