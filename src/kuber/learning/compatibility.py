"""In which of its forms knowledge can be run here: as weights of a network that we know, else as an ONNX graph."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kuber.domain.knowledge import ONNX, WEIGHTS, Architecture, Knowledge
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError, KnowledgeError, SettingsError
from kuber.learning.architectures import describe
from kuber.learning.onnx_model import check_installed

Knows = Callable[[Architecture], bool]


def known_by_name(architecture: Architecture) -> bool:
    """Whether the very same network is made here under this name with these arguments.

    Raises IncompatibleKnowledgeError when there is no such name, or its factory does not take the arguments.
    """
    return describe(architecture.name, architecture.arguments) == architecture


def check_fits(network: nn.Module, x: Tensor, *, classes: int) -> None:
    """IncompatibleKnowledgeError unless a network answers samples like these with one number for each class."""
    network.eval()
    try:
        with torch.no_grad():
            said = network(x)
        shape = tuple(said.shape)
    except KnowledgeError:
        raise
    except Exception as error:  # noqa: BLE001 - another's network: whatever it raises, it does not take our samples
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise IncompatibleKnowledgeError(f"The network does not take samples of this task: {reason}.") from None
    if shape != (len(x), classes):
        raise IncompatibleKnowledgeError(
            f"The network answers {len(x)} samples with shape {shape}, not ({len(x)}, {classes})."
        )


def runnable_form(knowledge: Knowledge, task: Task, knows: Knows = known_by_name) -> str:
    """The kind of artifact to pull: weights where their network is known here, else an ONNX graph.

    Raises IncompatibleKnowledgeError, with the reason, when the record is for another task or has neither.
    """
    if not task.understands(knowledge.task):
        raise IncompatibleKnowledgeError(f"Knowledge {knowledge.id} is for another task than ours.")
    reason = "it has no weights"
    if WEIGHTS in knowledge.artifacts:
        name, theirs = knowledge.architecture.name, knowledge.task
        usual = {"classes": theirs.classes, "input_shape": theirs.input_shape}  # where the arguments tell of them
        told = {key: value for key, value in knowledge.architecture.arguments.items() if key in usual}
        try:
            if not told.items() <= usual.items():
                reason = f"its architecture named {name} is not one for its task"
            elif knows(knowledge.architecture):
                return WEIGHTS
            else:
                reason = f"its architecture named {name} is not the one we know"
        except (IncompatibleKnowledgeError, SettingsError) as error:
            reason = error.message.rstrip(".")
    if ONNX not in knowledge.artifacts:
        raise IncompatibleKnowledgeError(f"Knowledge {knowledge.id} cannot be run: {reason}, and no ONNX graph.")
    check_installed()
    return ONNX
