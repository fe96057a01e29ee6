"""Write the generated parts of the pages: `python docs/tables.py`, or with `--check` name the pages that are stale.

A page holds a generated part between `<!-- tree -->`, `<!-- modules: PACKAGE ... -->` or `<!-- settings -->` and
`<!-- end -->`. Trees and module tables consist of the first lines of docstrings, the settings table of the fields of
`kuber.settings.Settings`.
"""

import ast
import re
import sys
import textwrap
from pathlib import Path

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "kuber"
PART = re.compile(r"(<!-- (tree|modules|settings)(?:: ([^>]+?))? -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 118
INDENT = 27  # column in which the purposes of a tree begin


def purpose(path: Path) -> str:
    """Return the first line of a module's docstring. Raises ValueError where there is none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{path} has no docstring")
    return docstring.partition("\n")[0]


def entries(package: Path) -> list[Path]:
    """Return the modules of a package in order of name, without `__init__` and `__main__`."""
    return [path for path in sorted(package.glob("*.py")) if not path.stem.startswith("__")]


def packages(package: Path) -> list[Path]:
    return [path.parent for path in sorted(package.glob("*/__init__.py"))]


def tree() -> str:
    """Return every package below src/kuber, and the modules beside them, each with its purpose."""
    lines = ["```", "src/kuber/"]

    def add(name: str, path: Path, depth: int) -> None:
        head = f"{'  ' * depth}{name}".ljust(INDENT)
        lines.extend(textwrap.wrap(purpose(path), WIDTH, initial_indent=head, subsequent_indent=" " * INDENT))

    def visit(package: Path, depth: int) -> None:
        for inner in packages(package):
            add(f"{inner.name}/", inner / "__init__.py", depth)
            visit(inner, depth + 1)

    visit(SOURCE, 1)
    for path in entries(SOURCE):
        add(path.name, path, 1)
    return "\n".join([*lines, "```", ""])


def modules(*names: str) -> str:
    """Return a table of the modules that lie directly in the given packages."""
    rows = [
        f"| `{path.relative_to(SOURCE).with_suffix('')}` | {purpose(path)} |"
        for name in names
        for path in entries(SOURCE / name)
    ]
    return "\n".join(["| module | purpose |", "| --- | --- |", *rows, ""])


def settings() -> str:
    """Return a table of every setting with its default and its meaning."""
    from kuber.settings import Settings

    rows = [
        f"| `{name}` | {'-' if field.default is None else field.default} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows, ""])


def renewed(page: str) -> str:
    """Return the page with its generated parts made anew."""

    def replace(part: re.Match[str]) -> str:
        kind, names = part[2], (part[3] or "").split()
        made = {"tree": tree, "modules": modules, "settings": settings}[kind](*names)
        return part[1] + made + part[4]

    return PART.sub(replace, page)


def stale() -> dict[Path, str]:
    """Return the pages whose generated parts are not those of the code, with their new text."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
    new = {path: renewed(text) for path, text in pages.items()}
    return {path: text for path, text in new.items() if text != pages[path]}


def main() -> int:
    pages = stale()
    for path, text in pages.items():
        print(path.relative_to(DOCS.parent))
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
    return 1 if pages and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
