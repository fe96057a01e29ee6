"""Names and sentences of the source: one word for one concept, and plain prose."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "kuber"
MODULES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}

# Words that have stood for a concept of docs/architecture.md, or hide what is named, and the word to use.
BANNED = {
    "told": "the thing: parameters, statement, payload, options, detail",
    "one": "the thing: entity, record, row",
    "tie": "session",
    "ties": "session",
    "errand": "message",
    "errands": "messages",
    "housing": "weight_store",
    "road": "link",
    "crew": "supervisor",
    "lone": "standalone",
    "shelf": "records",
    "shelves": "storage",
    "parcel": "payload",
    "resident": "simulated_entity",
    "agenda": "event_queue",
    "arena": "mapped_memory",
    "memo": "result_cache",
    "yardstick": "verification_set",
    "examiner": "verifier",
    "bench": "model_adapter",
    "crowd": "curves",
    "sheet": "page",
    "ledger": "metrics",
    "party": "entity",
    "parties": "entities",
    "heed": "kl",
    "scene": "scenario",
}
PUZZLING = re.compile(r"\b(?:[Tt]old|[Tt]ells? of|[Gg]oes on|is away|learnt|[Ww]hoever)\b|^(?:Of|What) ")
CLAUSE = re.compile(r"(?:Of|What|Who|Whom|Whose|Which|That|Where|As|To whom)\b")


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Every name that a module gives: of classes, functions, parameters, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def sentences(tree: ast.Module) -> Iterator[str]:
    """Every docstring, and every text of several words: messages, help texts, headings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.value


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_no_public_class_name_occurs_twice() -> None:
    names = Counter(
        node.name
        for tree in MODULES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_identifiers_use_the_words_of_the_design() -> None:
    found = {
        (module, name, f"use {BANNED[word]}")
        for module, tree in MODULES.items()
        for name in identifiers(tree)
        for word in re.findall(r"[a-z]+", _snake(name))
        if word in BANNED
    }
    assert found == set()


def test_sentences_are_plain() -> None:
    found = [(module, text) for module, tree in MODULES.items() for text in sentences(tree) if PUZZLING.search(text)]
    assert found == []


def test_first_lines_of_docstrings_are_imperative_or_name_the_thing() -> None:
    """ruff's D401 holds the mood of verbs; here no relative clause stands for the thing."""
    found = [(module, text) for module, tree in MODULES.items() for text in docstrings(tree) if CLAUSE.match(text)]
    assert found == []


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
