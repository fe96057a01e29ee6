"""Identity of a model's architecture: which models of other entities its code can run."""

from collections.abc import Iterable

from torch import nn
from torch.jit import ScriptModule

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Architecture, Argument
from kuber.domain.task import Task
from kuber.domain.tensors_digest import tensors_digest
from kuber.learning.hyperparameters import hyperparameters
from kuber.learning.model_call import Inputs
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.probe import probe
from kuber.learning.weight_checks import check_initialised, obstacle
from kuber.learning.weights import manifest_of, state_tensors
from kuber.learning.wrappers import unwrap


def describe_model(
    model: nn.Module,
    name: str | None,
    arguments: dict[str, Argument] | None,
    *,
    task: Task,
    samples: Inputs | None = None,
) -> Architecture:
    """Return a model's architecture: `name` and `arguments` if they are given, else what its own code shows.

    By default the name is the model's class, and the arguments are digests: of the tensors' names, dtypes and shapes,
    of the hyperparameters, and of the answers to a probe, if it can be run. They do not depend on what the model has
    learned, on wrappers around it, or on notes in its attributes. Raises SettingsError when the model has parameters
    without numbers.
    """
    if isinstance(model, OnnxModel):
        return Architecture(name=name or "onnx", arguments=arguments or {}, manifest={})
    network = unwrap(model)
    check_initialised(network)
    manifest = {} if obstacle(network) else manifest_of(state_tensors(network))
    if name is not None:
        return Architecture(name=name, arguments=arguments or {}, manifest=manifest)
    found: dict[str, Argument] = {
        "tensors": tensors_digest(manifest),
        "modules": _digest(hyperparameters(network)),
    }
    answers = probe(network, input_shape=task.input_shape, samples=samples)
    if answers is not None:
        found["answers"] = _digest([answers])
    return Architecture(name=_class_name(network), arguments=found, manifest=manifest)


def is_same_network(own: Architecture, other: Architecture) -> bool:
    """Return whether models of another architecture run by the code of the own one.

    Versions before hyperparameters and answers were compared published the digest of the tensors only: those are
    taken to be the same if the tensors are.
    """
    if other == own:
        return True
    earlier = {name: value for name, value in own.arguments.items() if name == "tensors"}
    return "modules" in own.arguments and (other.name, dict(other.arguments), dict(other.manifest)) == (
        own.name,
        earlier,
        dict(own.manifest),
    )


def _class_name(network: nn.Module) -> str:
    kind = type(network)
    qualified = network.original_name if isinstance(network, ScriptModule) else kind.__qualname__
    return f"{kind.__module__}.{qualified}"[-200:]


def _digest(lines: Iterable[str]) -> str:
    return Digest.of("\n".join(lines).encode(errors="replace")).hex[:16]
