"""KUber: knowledge exchange between independently trained deep networks.

`__all__` is the public API, told of in docs/api.md. Each name is loaded when it is first asked for, so that the
services never load torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kuber.client.credentials import Credentials as Credentials
    from kuber.client.memory import memory_hub as memory_hub
    from kuber.client.registry import HttpRegistry as HttpRegistry
    from kuber.client.vault import HttpVault as HttpVault
    from kuber.data.tensors import Tensors as Tensors
    from kuber.data.tensors import load_tensors as load_tensors
    from kuber.domain.digest import Digest as Digest
    from kuber.domain.evaluation import Evaluation as Evaluation
    from kuber.domain.explanation import reason_for as reason_for
    from kuber.domain.knowledge import Architecture as Architecture
    from kuber.domain.knowledge import Artifact as Artifact
    from kuber.domain.knowledge import Draft as Draft
    from kuber.domain.knowledge import Knowledge as Knowledge
    from kuber.domain.policies import AcceptancePolicy as AcceptancePolicy
    from kuber.domain.policies import MergePolicy as MergePolicy
    from kuber.domain.policies import PublishPolicy as PublishPolicy
    from kuber.domain.policies import SelectionPolicy as SelectionPolicy
    from kuber.domain.policies import has_improved as has_improved
    from kuber.domain.policies import is_mergeable as is_mergeable
    from kuber.domain.policies import is_no_worse as is_no_worse
    from kuber.domain.policies import merge_shares as merge_shares
    from kuber.domain.policies import most_recent as most_recent
    from kuber.domain.policies import select_complementary as select_complementary
    from kuber.domain.policies import weak_classes as weak_classes
    from kuber.domain.query import Page as Page
    from kuber.domain.query import Query as Query
    from kuber.domain.ranking import more_accurate as more_accurate
    from kuber.domain.strategies import Exchange as Exchange
    from kuber.domain.strategies import Kuber as Kuber
    from kuber.domain.strategies import Local as Local
    from kuber.domain.strategies import LocalBalanced as LocalBalanced
    from kuber.domain.strategies import Merge as Merge
    from kuber.domain.strategies import Vanilla as Vanilla
    from kuber.domain.strategy import Candidate as Candidate
    from kuber.domain.strategy import Choice as Choice
    from kuber.domain.strategy import Guidance as Guidance
    from kuber.domain.strategy import LocalPhase as LocalPhase
    from kuber.domain.strategy import Method as Method
    from kuber.domain.strategy import Search as Search
    from kuber.domain.strategy import Situation as Situation
    from kuber.domain.strategy import Strategy as Strategy
    from kuber.domain.task import Task as Task
    from kuber.entity.custom_loop import Entity as Entity
    from kuber.entity.model_adapter import test_set_digest as test_set_digest
    from kuber.errors import ConflictError as ConflictError
    from kuber.errors import CorruptKnowledgeError as CorruptKnowledgeError
    from kuber.errors import DatasetError as DatasetError
    from kuber.errors import DivergedError as DivergedError
    from kuber.errors import IncompatibleKnowledgeError as IncompatibleKnowledgeError
    from kuber.errors import InsufficientStorageError as InsufficientStorageError
    from kuber.errors import KnowledgeError as KnowledgeError
    from kuber.errors import KnowledgeNotFoundError as KnowledgeNotFoundError
    from kuber.errors import KUberError as KUberError
    from kuber.errors import NotAuthorizedError as NotAuthorizedError
    from kuber.errors import RequestRejectedError as RequestRejectedError
    from kuber.errors import ServiceError as ServiceError
    from kuber.errors import ServiceUnavailableError as ServiceUnavailableError
    from kuber.errors import SettingsError as SettingsError
    from kuber.errors import TrainingError as TrainingError
    from kuber.learning.ensembling import guide_loss as guide_loss
    from kuber.learning.ensembling import not_true_distillation as not_true_distillation
    from kuber.learning.losses import balanced_softmax as balanced_softmax
    from kuber.learning.losses import distillation_loss as distillation_loss
    from kuber.learning.onnx_model import GraphLimits as GraphLimits
    from kuber.learning.onnx_model import OnnxModel as OnnxModel
    from kuber.learning.onnx_model import export as export
    from kuber.learning.teachers import Teacher as Teacher
    from kuber.learning.teachers import Teachers as Teachers

__version__ = version("kuber")

# Module -> the public names in it. The imports above tell type checkers the same; a test compares the two.
_PUBLIC = {
    "kuber.client.credentials": ("Credentials",),
    "kuber.client.memory": ("memory_hub",),
    "kuber.client.registry": ("HttpRegistry",),
    "kuber.client.vault": ("HttpVault",),
    "kuber.data.tensors": ("Tensors", "load_tensors"),
    "kuber.domain.policies": (
        "SelectionPolicy",
        "AcceptancePolicy",
        "MergePolicy",
        "PublishPolicy",
        "has_improved",
        "select_complementary",
        "most_recent",
        "weak_classes",
        "merge_shares",
        "is_no_worse",
        "is_mergeable",
    ),
    "kuber.domain.digest": ("Digest",),
    "kuber.domain.evaluation": ("Evaluation",),
    "kuber.domain.knowledge": ("Architecture", "Artifact", "Draft", "Knowledge"),
    "kuber.domain.query": ("Page", "Query"),
    "kuber.domain.ranking": ("more_accurate",),
    "kuber.domain.explanation": ("reason_for",),
    "kuber.domain.strategies": ("Exchange", "Kuber", "Local", "LocalBalanced", "Merge", "Vanilla"),
    "kuber.domain.strategy": (
        "Candidate",
        "Choice",
        "Guidance",
        "LocalPhase",
        "Method",
        "Search",
        "Situation",
        "Strategy",
    ),
    "kuber.domain.task": ("Task",),
    "kuber.entity.model_adapter": ("test_set_digest",),
    "kuber.entity.custom_loop": ("Entity",),
    "kuber.errors": (
        "ConflictError",
        "CorruptKnowledgeError",
        "DatasetError",
        "DivergedError",
        "IncompatibleKnowledgeError",
        "InsufficientStorageError",
        "KUberError",
        "KnowledgeError",
        "KnowledgeNotFoundError",
        "NotAuthorizedError",
        "RequestRejectedError",
        "ServiceError",
        "ServiceUnavailableError",
        "SettingsError",
        "TrainingError",
    ),
    "kuber.learning.losses": ("balanced_softmax", "distillation_loss"),
    "kuber.learning.ensembling": ("guide_loss", "not_true_distillation"),
    "kuber.learning.onnx_model": ("GraphLimits", "OnnxModel", "export"),
    "kuber.learning.teachers": ("Teachers", "Teacher"),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted([*_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
