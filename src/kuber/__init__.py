"""KUber: knowledge exchange between independently trained deep networks.

`__all__` and the modules `strategies`, `losses`, `onnx` and `errors` are the public API: see docs/api.md. Each is
loaded on first use, so that the services never load torch.
"""

import logging
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kuber.printable_log import PrintableFilter

if TYPE_CHECKING:
    from kuber import errors as errors
    from kuber import losses as losses
    from kuber import onnx as onnx
    from kuber import strategies as strategies
    from kuber.client.credentials import Credentials as Credentials
    from kuber.client.memory import memory_hub as memory_hub
    from kuber.client.registry import HttpRegistry as HttpRegistry
    from kuber.client.vault import HttpVault as HttpVault
    from kuber.data.tensors import Tensors as Tensors
    from kuber.data.tensors import load_tensors as load_tensors
    from kuber.domain.digest import Digest as Digest
    from kuber.domain.evaluation import Evaluation as Evaluation
    from kuber.domain.knowledge import Knowledge as Knowledge
    from kuber.domain.query import Page as Page
    from kuber.domain.query import Query as Query
    from kuber.domain.task import Task as Task
    from kuber.entity.custom_loop import Entity as Entity
    from kuber.entity.validation_data import test_set_digest as test_set_digest
    from kuber.errors import KUberError as KUberError
    from kuber.learning.teachers import Teacher as Teacher
    from kuber.learning.teachers import Teachers as Teachers

__version__ = version("kuber")
logging.getLogger("kuber").addFilter(PrintableFilter())

# Public name -> its module. The imports above say the same to type checkers; a test compares the two.
_NAMES = {
    "Credentials": "kuber.client.credentials",
    "Digest": "kuber.domain.digest",
    "Entity": "kuber.entity.custom_loop",
    "Evaluation": "kuber.domain.evaluation",
    "HttpRegistry": "kuber.client.registry",
    "HttpVault": "kuber.client.vault",
    "KUberError": "kuber.errors",
    "Knowledge": "kuber.domain.knowledge",
    "Page": "kuber.domain.query",
    "Query": "kuber.domain.query",
    "Task": "kuber.domain.task",
    "Teacher": "kuber.learning.teachers",
    "Teachers": "kuber.learning.teachers",
    "Tensors": "kuber.data.tensors",
    "load_tensors": "kuber.data.tensors",
    "memory_hub": "kuber.client.memory",
    "test_set_digest": "kuber.entity.validation_data",
}
_MODULES = ("errors", "losses", "onnx", "strategies")
__all__ = sorted([*_NAMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
