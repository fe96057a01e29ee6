"""The public names: which they are, and that asking for one loads no more than it needs."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import kuber
from kuber.domain import strategies
from kuber.domain.strategies import STRATEGIES

# Whoever takes one of these away breaks somebody's program.
NAMES = {
    *("Entity", "Task", "Evaluation", "Digest", "Teachers", "Teacher", "test_set_digest", "Tensors", "load_tensors"),
    *("distillation_loss", "guide_loss", "not_true_distillation", "balanced_softmax"),
    *("Portable", "GraphLimits", "export"),
    *("Knowledge", "Draft", "Artifact", "Architecture", "Query", "Page"),
    *("HttpRegistry", "HttpVault", "Credentials", "memory_hub"),
    *("Strategy", "Situation", "Search", "Method", "LocalPhase", "Guidance", "Candidate", "Choice"),
    *("Local", "LocalBalanced", "Vanilla", "Exchange", "Merge", "Kuber"),
    *("Publishing", "Choosing", "Merging", "Keeping"),
    *("adds_something", "better", "complementary", "freshest", "lacking", "merge_shares", "no_worse", "related"),
    "reason_for",
    *("KUberError", "SettingsError", "DatasetError", "TrainingError", "DivergedError", "KnowledgeError"),
    *("KnowledgeNotFoundError", "IncompatibleKnowledgeError", "CorruptKnowledgeError", "ServiceError"),
    *("ServiceUnavailableError", "NotAuthorizedError", "ConflictError", "InsufficientStorageError"),
    *("RequestRejectedError", "__version__"),
}


def test_the_public_names_are_these():
    assert set(kuber.__all__) == NAMES
    assert dir(kuber) == kuber.__all__


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_is_there_and_says_what_it_is(name):
    found = getattr(kuber, name)
    assert found.__doc__


def test_type_checkers_are_told_the_same():
    tree = ast.parse(Path(kuber.__file__).read_text(encoding="utf-8"))
    told = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kuber.")
        for alias in node.names
    }
    assert told == {(module, name) for name, module in kuber._MODULES.items()}


def test_what_is_not_there_is_no_name():
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        kuber.Client  # noqa: B018


def test_importing_kuber_loads_nothing_heavy():
    heavy = ("torch", "numpy", "httpx")
    code = f"import sys, kuber; kuber.KUberError, kuber.Task; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", sorted({type(one).__module__ for one in STRATEGIES.values()}))
def test_the_built_in_strategies_are_made_of_public_pieces(module):
    """What they import of KUber is what `import kuber` offers, so that a strategy of one's own can do the same."""
    tree = ast.parse(Path(import_module(module).__file__).read_text(encoding="utf-8"))
    used = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kuber")
        for alias in node.names
    }
    assert used <= NAMES
    assert strategies.__doc__
