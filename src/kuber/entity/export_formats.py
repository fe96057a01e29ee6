"""Formats in which an owner's model is published: weights, an ONNX graph, or both."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kuber.domain.knowledge import ONNX, WEIGHTS, TensorSpec
from kuber.domain.safetensors_header import bfloat16_manifest
from kuber.domain.task import Task
from kuber.errors import IncompatibleKnowledgeError, KUberError, SettingsError, first_line
from kuber.learning.model_call import LogitsModel
from kuber.learning.onnx_export import faithful_graph
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.weight_checks import obstacle, obstacle_of
from kuber.learning.weights import Weights, dump, manifest_of, state_tensors

CHECKED_SAMPLES = 8  # on which each graph is compared with its model

log = logging.getLogger("kuber")


class ExportFormats:
    """Exports a model as artifacts of the chosen kinds; each graph is compared with the model before it is used."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        samples: object,
        formats: Sequence[str] | None,
        *,
        returns_logits: bool = True,
    ) -> None:
        """Choose by default weights, and a graph if the model can be exported as one; warn if one is left out.

        Graphs are compared with the model on some of `samples`, and take their dtype. They return logits, also where
        the model, unless it `returns_logits`, has an output of another form. Raises SettingsError when
        `formats` names none or unknown ones, weights that no hub takes, or a graph of a model that cannot be exported
        as one, and when the model can be published in no format.
        """
        self._network = model if returns_logits else LogitsModel(model, task.classes)  # that graphs are made of
        self._task = task
        self._samples = samples
        self._warned = False
        own = model.model if isinstance(model, LogitsModel) else model  # weights have the names of the owner's module
        self._has_weights = not isinstance(own, OnnxModel) and bool(own.state_dict())
        self._obstacle = obstacle(own) if self._has_weights else None
        self._faults: set[str] = set()  # of weights, that were warned of
        self._manifests: list[dict[str, TensorSpec]] = []
        if self._has_weights and self._obstacle is None:
            manifest = manifest_of(state_tensors(own))
            self._manifests = [manifest, bfloat16_manifest(manifest)]
        self.kinds = self._default() if formats is None else self._checked(formats)

    def artifacts(self, weights: Weights) -> dict[str, bytes]:
        """Return the artifacts of these weights, which are the model's own, by kind; none if there are only failures.

        A graph that fails is left out, and so are weights that no hub would take, with a warning at the first time.
        """
        artifacts = {}
        fault = self._weights_fault(weights) if WEIGHTS in self.kinds else None
        if WEIGHTS in self.kinds and fault is None:
            artifacts[WEIGHTS] = dump(weights)
        if ONNX in self.kinds:
            try:
                artifacts[ONNX] = self._graph()
            except Exception as error:  # noqa: BLE001 - the owner's forward may raise anything
                self._warn(_reason(error), published=WEIGHTS in artifacts)
        if fault is not None:
            self._warn_of_weights(fault, published=ONNX in artifacts)
        return artifacts

    def _weights_fault(self, weights: Weights) -> str | None:
        """Return why a hub would refuse these weights although it took, or would have taken, the first ones."""
        if not (found := obstacle_of(weights)) and manifest_of(weights) not in self._manifests:
            return "its tensors have other names, dtypes or shapes than when the entity was made; make a new entity"
        return found

    def _warn_of_weights(self, fault: str, *, published: bool) -> None:
        if fault in self._faults:
            return
        self._faults.add(fault)
        log.warning("The model is %s: %s.", "published as a graph only" if published else "not published", fault)

    def _default(self) -> tuple[str, ...]:
        try:
            self._graph()
        except Exception as error:  # noqa: BLE001 - the owner's forward may raise anything
            if self._obstacle is not None:
                raise SettingsError(
                    f"The model cannot be published: its weights do not travel, because {self._obstacle}. "
                    f"{_reason(error)}"
                ) from None
            if not self._has_weights:
                raise SettingsError(f"The model has no weights to publish, and no graph: {_reason(error)}") from None
            self._warn(_reason(error), published=True)
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
            try:
                self._graph()
            except Exception as error:  # noqa: BLE001 - the owner's forward may raise anything
                raise SettingsError(f"`formats` asks for an ONNX graph. {_reason(error)}") from None
        return tuple(formats)

    def _warn(self, reason: str, *, published: bool) -> None:
        if self._warned:
            return
        self._warned = True
        if published:
            log.warning(
                "The model is published as weights only, from which entities of the same architecture can learn: %s",
                reason,
            )
        else:
            log.warning("The model is not published: %s", reason)

    def _graph(self) -> bytes:
        return faithful_graph(self._network, self._few_samples(), classes=self._task.classes)

    def _few_samples(self) -> Tensor:
        """Return samples to compare a graph with, spread over those given; random ones if there are none."""
        if self._samples is None:
            draws = torch.Generator().manual_seed(0)
            return torch.randn(CHECKED_SAMPLES, *self._task.input_shape, generator=draws)
        if not isinstance(self._samples, Tensor):
            raise IncompatibleKnowledgeError("A model of several inputs cannot be exported as an ONNX graph.")
        places = torch.linspace(0, len(self._samples) - 1, CHECKED_SAMPLES).long()
        return self._samples[places]


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, KUberError) else f"{first_line(error)}."
