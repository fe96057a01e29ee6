"""In which forms a model of the user's own is published: as weights, as an ONNX graph, or as both."""

import logging
from collections.abc import Sequence

import torch

from kuber.domain.knowledge import ONNX, WEIGHTS
from kuber.entity.model_adapter import ModelAdapter
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.onnx_model import check_equivalent, export
from kuber.learning.weights import Weights, dump

log = logging.getLogger("kuber")


class ExportFormats:
    """Makes the artifacts of what is published. `kinds` are those it makes."""

    def __init__(self, bench: ModelAdapter, wanted: Sequence[str] | None, *, name: str) -> None:
        """Without a wish: weights, and a graph where the model can be written as one; if not, a warning says so.

        Raises SettingsError when the forms asked for are none, IncompatibleKnowledgeError when they cannot be made.
        """
        self._bench = bench
        self.kinds = self._usual(name) if wanted is None else self._checked(wanted)

    def __call__(self, weights: Weights) -> dict[str, bytes]:
        """Artifact kind -> its bytes, of these weights, which the model has now."""
        made = {WEIGHTS: lambda: dump(weights), ONNX: self._graph}
        return {kind: made[kind]() for kind in self.kinds}

    def _usual(self, name: str) -> tuple[str, ...]:
        try:
            self._check_graph()
        except IncompatibleKnowledgeError as error:
            if not self._bench.architecture.manifest:
                raise
            log.warning("%s Only others of the same architecture can learn from %s.", error.message, name)
            return (WEIGHTS,)
        return (WEIGHTS, ONNX) if self._bench.architecture.manifest else (ONNX,)

    def _checked(self, wanted: Sequence[str]) -> tuple[str, ...]:
        if not wanted or not set(wanted) <= {WEIGHTS, ONNX}:
            raise SettingsError(f"A model is published as {WEIGHTS}, {ONNX}, or both, not as {list(wanted)}.")
        if WEIGHTS in wanted and not self._bench.architecture.manifest:
            raise SettingsError("An ONNX graph has no weights of its own to publish.")
        if ONNX in wanted:
            self._check_graph()
        return tuple(wanted)

    def _check_graph(self) -> None:
        bench, graph = self._bench, self._graph()
        if bench.labelled is not None:
            probe = bench.labelled.x[:3].to(bench.device)
            check_equivalent(bench.model, graph, probe, classes=bench.task.classes)

    def _graph(self) -> bytes:
        labelled = self._bench.labelled
        dtype = torch.float32 if labelled is None else labelled.x.dtype
        return export(self._bench.model, input_shape=self._bench.task.input_shape, dtype=dtype)
