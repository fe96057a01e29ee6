"""In which of its forms knowledge can be run here: as weights of a network that we know, else as an ONNX graph."""

from collections.abc import Callable

from kuber.domain.knowledge import ONNX, WEIGHTS, Architecture, Knowledge
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.architectures import describe
from kuber.learning.portable import check_installed

Knows = Callable[[Architecture], bool]


def known_by_name(architecture: Architecture) -> bool:
    """Whether the very same network is made here under this name with these arguments.

    Raises IncompatibleKnowledgeError when there is no such name, or its factory does not take the arguments.
    """
    return describe(architecture.name, architecture.arguments) == architecture


def runnable_form(knowledge: Knowledge, task: Task, knows: Knows = known_by_name) -> str:
    """The kind of artifact to pull: weights where their network is known here, else an ONNX graph.

    Raises IncompatibleKnowledgeError, with the reason, when the record is for another task or has neither.
    """
    if not task.understands(knowledge.task):
        raise IncompatibleKnowledgeError(f"Knowledge {knowledge.id} is for another task than ours.")
    reason = "it has no weights"
    if WEIGHTS in knowledge.artifacts:
        name = knowledge.architecture.name
        try:
            if knows(knowledge.architecture):
                return WEIGHTS
            reason = f"its architecture named {name} is not the one we know"
        except (IncompatibleKnowledgeError, SettingsError) as error:
            reason = error.message.rstrip(".")
    if ONNX not in knowledge.artifacts:
        raise IncompatibleKnowledgeError(f"Knowledge {knowledge.id} cannot be run: {reason}, and no ONNX graph.")
    check_installed()
    return ONNX
