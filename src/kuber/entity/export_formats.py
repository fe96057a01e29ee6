"""Formats in which an owner's model is published: weights, an ONNX graph, or both."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kuber.domain.knowledge import ONNX, WEIGHTS
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.onnx_model import OnnxModel, check_equivalent, export
from kuber.learning.weight_checks import obstacle
from kuber.learning.weights import Weights, dump

log = logging.getLogger("kuber")


class ExportFormats:
    """Exports a model as artifacts of the chosen kinds."""

    def __init__(self, model: nn.Module, task: Task, samples: Tensor | None, formats: Sequence[str] | None) -> None:
        """Choose by default weights, and a graph if the model can be exported as one; warn if one is left out.

        The graph is compared with the model on some of `samples`, and takes their dtype. Raises SettingsError when
        `formats` names none or unknown ones, or weights that no hub takes, and when the model can be published in no
        format; IncompatibleKnowledgeError when it cannot be exported as `formats` says.
        """
        self._model = model
        self._task = task
        self._samples = samples
        self._has_weights = not isinstance(model, OnnxModel) and bool(model.state_dict())
        self._obstacle = obstacle(model) if self._has_weights else None
        self.kinds = self._default() if formats is None else self._checked(formats)

    def artifacts(self, weights: Weights) -> dict[str, bytes]:
        """Return the artifacts of these weights, which are the model's own, by kind."""
        make = {WEIGHTS: lambda: dump(weights), ONNX: self._graph}
        return {kind: make[kind]() for kind in self.kinds}

    def _default(self) -> tuple[str, ...]:
        try:
            self._check_graph()
        except IncompatibleKnowledgeError as error:
            if self._obstacle is not None:
                raise SettingsError(
                    f"The model cannot be published: its weights do not travel, because {self._obstacle}. "
                    f"{error.message}"
                ) from None
            if not self._has_weights:
                raise
            log.warning("%s Only entities of the same architecture can learn from it.", error.message)
            return (WEIGHTS,)
        if self._obstacle is not None:
            log.warning("The model is published as a graph only: %s.", self._obstacle)
        return (WEIGHTS, ONNX) if self._has_weights and self._obstacle is None else (ONNX,)

    def _checked(self, formats: Sequence[str]) -> tuple[str, ...]:
        if not formats or not set(formats) <= {WEIGHTS, ONNX}:
            raise SettingsError(f"A model is published as {WEIGHTS}, {ONNX}, or both, not as {list(formats)}.")
        if WEIGHTS in formats and not self._has_weights:
            raise SettingsError("An ONNX graph has no weights to publish; leave them out of `formats`.")
        if WEIGHTS in formats and self._obstacle is not None:
            raise SettingsError(f"The model cannot be published as weights: {self._obstacle}.")
        if ONNX in formats:
            self._check_graph()
        return tuple(formats)

    def _check_graph(self) -> None:
        graph = self._graph()
        if self._samples is not None:
            device = next((tensor.device for tensor in self._model.parameters()), torch.device("cpu"))
            check_equivalent(self._model, graph, self._samples[:3].to(device), classes=self._task.classes)

    def _graph(self) -> bytes:
        dtype = torch.float32 if self._samples is None else self._samples.dtype
        return export(self._model, input_shape=self._task.input_shape, dtype=dtype)
