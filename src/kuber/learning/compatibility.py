"""Choice of the artifact to run: weights if their network can be made here, else an ONNX graph."""

from collections.abc import Callable

from torch import nn

from kuber.domain.knowledge import ONNX, WEIGHTS, Architecture, Knowledge
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError, KnowledgeError, SettingsError, first_line
from kuber.learning.architectures import describe
from kuber.learning.evaluation import evaluation_mode
from kuber.learning.model_call import Inputs, batch_size, call_model
from kuber.learning.onnx_model import check_installed

CanLoad = Callable[[Architecture], bool]


def can_load_by_name(architecture: Architecture) -> bool:
    """Return whether the architecture of this name here, with these arguments, has the same tensors.

    Raises IncompatibleKnowledgeError when the name is unknown or the arguments do not fit.
    """
    return describe(architecture.name, architecture.arguments) == architecture


def lacks_memory(error: Exception) -> bool:
    """Return whether an error says that this machine or its device had no memory left."""
    texts = ("out of memory", "allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(t in str(error) for t in texts))


def check_fits(network: nn.Module, x: Inputs, *, classes: int) -> None:
    """Raise IncompatibleKnowledgeError unless the network returns shape (len(x), classes) for samples `x`.

    A lack of memory is not the network's fault: its error is passed on.
    """
    try:
        with evaluation_mode(network):
            shape = tuple(call_model(network, x).shape)
    except KnowledgeError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise  # another time the same network may do
        raise IncompatibleKnowledgeError(
            f"The network does not accept samples of this task: {first_line(error)}."
        ) from None
    if shape != (batch_size(x), classes):
        raise IncompatibleKnowledgeError(
            f"For {batch_size(x)} samples the network returns shape {shape}, not ({batch_size(x)}, {classes})."
        )


def runnable_kind(knowledge: Knowledge, task: Task, can_load: CanLoad = can_load_by_name) -> str:
    """Return the kind of artifact to pull: the first of `runnable_kinds`."""
    return runnable_kinds(knowledge, task, can_load)[0]


def runnable_kinds(knowledge: Knowledge, task: Task, can_load: CanLoad = can_load_by_name) -> tuple[str, ...]:
    """Return the kinds of artifacts to try: weights if their network can be made here, then an ONNX graph.

    Raises IncompatibleKnowledgeError, with the reason, when the record is for another task or has neither.
    """
    if not task.understands(knowledge.task):
        raise IncompatibleKnowledgeError(f"Knowledge {knowledge.id} is for another task.")
    reason = _obstacle(knowledge, can_load)
    if ONNX not in knowledge.artifacts:
        if reason is None:
            return (WEIGHTS,)
        raise IncompatibleKnowledgeError(
            f"Knowledge {knowledge.id} cannot be run: {reason}, and it has no ONNX graph."
        )
    try:
        check_installed()
    except IncompatibleKnowledgeError:
        if reason is None:
            return (WEIGHTS,)
        raise
    return (ONNX,) if reason is not None else (WEIGHTS, ONNX)


def _obstacle(knowledge: Knowledge, can_load: CanLoad) -> str | None:
    """Return the reason why a record's weights cannot be loaded here; None if they can."""
    if WEIGHTS not in knowledge.artifacts:
        return "it has no weights"
    name, theirs = knowledge.architecture.name, knowledge.task
    expected = {"classes": theirs.classes, "input_shape": theirs.input_shape}  # where the arguments have them
    stated = {key: value for key, value in knowledge.architecture.arguments.items() if key in expected}
    try:
        if not stated.items() <= expected.items():
            return f"its architecture {name} does not fit its task"
        if can_load(knowledge.architecture):
            return None
    except (IncompatibleKnowledgeError, SettingsError) as error:
        return error.message.rstrip(".")
    return f"its architecture {name} differs from the one of that name here"
