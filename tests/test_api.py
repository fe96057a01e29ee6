"""The public names: which they are, where they are described, and that asking for one loads no more than it needs."""

import ast
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.knowledge import ONNX, WEIGHTS, TensorSpec
from kuber.domain.strategies import STRATEGIES
from kuber.errors import all_errors, first_line
from kuber.strategies import Architecture, Artifact

# Taking one of these away breaks somebody's program.
NAMES = {
    "kuber": {
        *("Entity", "Task", "Evaluation", "Digest", "Teachers", "Teacher", "test_set_digest", "Tensors"),
        *("load_tensors", "Knowledge", "Query", "Page", "HttpRegistry", "HttpVault", "Credentials", "memory_hub"),
        *("KUberError", "__version__"),
    },
    "kuber.strategies": {
        *("Local", "LocalBalanced", "Vanilla", "Exchange", "Merge", "Kuber"),
        *("Strategy", "Situation", "Method", "LocalPhase", "Guidance", "Candidate", "Choice"),
        *("PublishPolicy", "SelectionPolicy", "MergePolicy", "OuterStepPolicy", "ProxyPolicy"),
        *("WaitingPolicy", "AcceptancePolicy"),
        *("has_improved", "more_accurate", "select_complementary", "most_recent", "weak_classes", "merge_shares"),
        *("query_for_teachers", "more_are_expected"),
        *("is_no_worse", "is_mergeable", "is_too_old", "reason_for", "Draft", "Artifact", "Architecture"),
    },
    "kuber.losses": {"distillation_loss", "guide_loss", "not_true_distillation", "balanced_softmax"},
    "kuber.onnx": {"OnnxModel", "GraphLimits", "export"},
    "kuber.errors": {
        *("KUberError", "SettingsError", "DatasetError", "TrainingError", "DivergedError", "KnowledgeError"),
        *("KnowledgeNotFoundError", "IncompatibleKnowledgeError", "CorruptKnowledgeError", "ServiceError"),
        *("ServiceUnavailableError", "NotAuthorizedError", "ConflictError", "InsufficientStorageError"),
        "RequestRejectedError",
    },
}
EACH = sorted((module, name) for module, names in NAMES.items() for name in names)
PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_public_names_are_these():
    for module in ("kuber", "kuber.strategies", "kuber.losses", "kuber.onnx"):
        assert set(import_module(module).__all__) == NAMES[module]
    assert {error.__name__ for error in all_errors()} == NAMES["kuber.errors"]
    assert set(dir(kuber)) == NAMES["kuber"] | {"strategies", "losses", "onnx", "errors"}


@pytest.mark.parametrize(("module", "name"), EACH)
def test_each_has_a_docstring(module, name):
    assert getattr(import_module(module), name).__doc__


def test_each_is_described_once_under_the_module_it_is_imported_from():
    described = re.findall(r"^::: (kuber\S*)\.(\w+)$", PAGE, re.MULTILINE)
    once = [(module, name) for module, name in EACH if (module, name) != ("kuber", "KUberError")]
    assert sorted(described) == sorted(set(once) - {("kuber", "__version__")})


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(kuber.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    imported = {
        (node.module, alias.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kuber")
        for alias in node.names
    }
    lazy = {(module, name) for name, module in kuber._NAMES.items()}
    assert imported == lazy | {("kuber", module) for module in kuber._MODULES}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        kuber.Client  # noqa: B018


@pytest.mark.process
def test_only_what_needs_them_loads_torch_and_numpy():
    heavy = ("torch", "numpy", "httpx")
    used = "kuber.KUberError, kuber.Task, kuber.errors.KUberError, kuber.strategies.Exchange"
    code = f"import sys, kuber; {used}; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import kuber; kuber.losses.guide_loss, kuber.onnx.export"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", sorted({type(strategy).__module__ for strategy in STRATEGIES.values()}))
def test_the_built_in_strategies_are_made_of_public_pieces(module):
    """A strategy of the user's own can do all that the built-in ones do."""
    tree = ast.parse(Path(import_module(module).__file__).read_text(encoding="utf-8"))
    used = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kuber")
        for alias in node.names
    }
    assert used <= NAMES["kuber"] | NAMES["kuber.strategies"]


def test_records_print_as_what_they_are():
    test_set = kuber.Digest("ab" * 32)
    task = kuber.Task(name="digits", labels=("0", "1"), input_shape=(1, 8, 8), test_set=test_set)
    evaluation = kuber.Evaluation(test_set=test_set, correct=(800, 900), total=(1000, 1000))
    record = kuber.Knowledge(
        id="k1",
        entity="e1",
        task=task,
        architecture=Architecture(name="mlp", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(2, 64))}),
        artifacts={WEIGHTS: Artifact.of(b"weights"), ONNX: Artifact.of(b"graph")},
        evaluation=evaluation,
        round=12,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    text = "<Knowledge k1: digits, mlp as weights and onnx, entity e1 round 12, 85.0 % claimed>"
    assert repr(record) == str(record) == text
    assert repr(kuber.Page(items=(record,), cursor="next")) == f"<Page: {text}; more follow>"
    assert repr(kuber.Page(items=(), cursor=None)) == "<Page: empty; last page>"
    assert repr(task) == f"<Task 'digits': 2 classes, samples (1, 8, 8), common test set {test_set}>"
    assert repr(replace(task, test_set=None)).endswith("common test set none>")
    assert repr(evaluation) == (f"<Evaluation: 85.0 %, 1,700 of 2,000 samples in 2 classes, test set {test_set}>")
    assert (str(test_set), repr(test_set)) == (f"sha256:{'ab' * 32}", f"Digest(hex='{'ab' * 32}')")


def test_an_entity_and_its_teachers_print_as_who_they_are(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(40, 2), torch.arange(40) % 2
    task = kuber.Task(name="clouds", labels=("a", "b"), input_shape=(2,))
    hub = kuber.memory_hub()

    def enter(name):
        return kuber.Entity(
            name,
            model=nn.Linear(2, 2),
            task=task,
            validation=(x, y),
            hub=hub,
            folder=tmp_path / name,
            formats=("weights",),
        )

    with enter("bob") as bob, enter("ann") as ann:
        assert repr(bob) == "<Entity 'bob': clouds, strategy exchange, round 0, not evaluated>"
        bob.publish()
        teachers = ann.step()
        accuracy = 100 * ann.evaluation.accuracy
        assert repr(ann) == f"<Entity 'ann': clouds, strategy exchange, round 1, {accuracy:.1f} %>"
        assert re.fullmatch(r"1 teacher: bob r\d+ \(\d+ %\)", str(teachers))


def test_a_hub_in_memory_prints_as_what_it_holds():
    registry, vault = kuber.memory_hub()
    registry.register("bob")
    vault.put(b"blob")
    assert (repr(registry), repr(vault)) == ("<MemoryRegistry: entities=1, records=0>", "<MemoryVault: blobs=1>")


def test_clients_print_as_what_they_talk_to():
    me = kuber.Credentials()
    with (
        kuber.HttpRegistry("http://127.0.0.1:5001", credentials=me) as registry,
        kuber.HttpVault("http://127.0.0.1:5002") as vault,
    ):
        assert repr(registry) == "<HttpRegistry at http://127.0.0.1:5001>"
        assert repr(vault) == "<HttpVault at http://127.0.0.1:5002>"
    assert repr(me) == f"<Credentials: key {me.identity.public_key[:12]}, no token>"
    assert "secret" not in repr(kuber.Credentials(token="secret"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("  \nIt failed.\nat line 3"), "It failed"),
        (ValueError(), "ValueError"),
        ("npm error\nmore", "npm error"),
        (ValueError("x" * 400), "x" * 300),
    ],
    ids=["second line", "empty", "text", "long"],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line
