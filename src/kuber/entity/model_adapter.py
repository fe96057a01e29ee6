"""Run an owner's model, and the models of others, on the owner's device and data and over the owner's labels."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Argument
from kuber.domain.task import Task
from kuber.entity.architecture_identity import describe_model, is_same_network
from kuber.entity.export_formats import ExportFormats
from kuber.entity.work.learner import TeacherModel
from kuber.entity.work.steps import EvaluationResult
from kuber.errors import SettingsError
from kuber.learning.architectures import make_network
from kuber.learning.compatibility import can_load_by_name, check_fits
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.runtime import Runtime
from kuber.learning.teachers import LabelMapped
from kuber.learning.weights import Weights, weights_of
from kuber.learning.wrappers import unwrap

MAX_ONNX_WORKERS = 8  # graphs whose processes are kept running

Validation = Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor]
EvaluateFn = Callable[[nn.Module], Evaluation]
Collate = Callable[[Any], tuple[Any, Tensor]]  # a batch of the owner's -> (inputs, labels)


class LabelledData:
    """Samples and their labels, in memory."""

    def __init__(self, samples: Validation) -> None:
        """Take two tensors, or batches of them: x of shape (batch, ...), y of shape (batch,)."""
        pairs: Any = [samples] if isinstance(samples, tuple) else list(samples)
        if not pairs or not all(len(pair) == 2 and all(isinstance(part, Tensor) for part in pair) for pair in pairs):
            raise SettingsError("Validation data must be pairs of tensors, samples and labels; give at least one.")
        self.x = torch.cat([x for x, _ in pairs]).cpu()
        self.y = torch.cat([y for _, y in pairs]).cpu()
        if self.y.dim() != 1 or len(self.x) != len(self.y) or self.y.dtype.is_floating_point:
            raise SettingsError("Labels of validation data must be whole numbers, one for each sample.")

    @property
    def digest(self) -> Digest:
        """Digest of shapes, dtypes, samples and labels, in order, whatever the batch size."""
        header = f"{self.x.dtype} {tuple(self.x.shape)} {self.y.dtype}\n".encode()
        return Digest.of(header, _bytes(self.x), _bytes(self.y))

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in zip(torch.split(self.x, EVALUATION_BATCH), torch.split(self.y, EVALUATION_BATCH), strict=True):
            yield x.to(device), y.to(device)

    def check(self, task: Task) -> None:
        """Raise SettingsError unless shapes, labels and digest are those of the task."""
        shape = tuple(self.x.shape[1:])
        if shape != task.input_shape:
            raise SettingsError(f"Validation samples have shape {shape}, but those of the task {task.input_shape}.")
        if len(self.y) and (self.y.min() < 0 or self.y.max() >= task.classes):
            raise SettingsError(f"Labels of validation data must be from 0 to {task.classes - 1}.")
        if task.test_set is not None and self.digest != task.test_set:
            raise SettingsError("The validation data are not the common test set whose digest the task has.")


def test_set_digest(validation: Validation) -> Digest:
    """Return the digest of a common test set, for `Task(test_set=...)`. It does not depend on the batch size."""
    return LabelledData(validation).digest


class ModelAdapter:
    """The `ModelPort` of a model that its owner trains."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        architecture: str | None,
        arguments: dict[str, Argument] | None,
        validation: Validation | None,
        evaluate: EvaluateFn | None,
        class_counts: Sequence[int] | None,
        formats: Sequence[str] | None,
        judged: nn.Module | None = None,
        collate: Collate | None = None,
    ) -> None:
        if (validation is None) == (evaluate is None):
            raise SettingsError("An entity needs either validation data or a function that evaluates a model.")
        self.task = task
        self.class_counts = None if class_counts is None else tuple(class_counts)
        self._model = unwrap(model)
        self._data = None if validation is None else LabelledData(validation)
        if self._data is not None:
            self._data.check(task)
        self._digest = None if self._data is None else self._data.digest
        self._evaluate = evaluate
        samples = None if self._data is None else self._data.x
        self.architecture = describe_model(self._model, architecture, arguments, task=task, samples=samples)
        self._formats = ExportFormats(self._model, task, None if self._data is None else self._data.x, formats)
        self._graphs: dict[tuple[bytes, tuple[int, ...], int], OnnxModel] = {}  # least recently used first

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next((tensor.device for tensor in self._model.parameters()), torch.device("cpu"))

    @property
    def runtime(self) -> Runtime:
        threads = torch.get_num_threads()
        return Runtime(device=str(self.device), precision="float32", threads=threads, channels_last=False)

    @property
    def sample_count(self) -> int | None:
        return None if self.class_counts is None else sum(self.class_counts)

    def weights(self) -> Weights:
        """Return a copy of the model's weights; none for an ONNX graph."""
        return {} if isinstance(self._model, OnnxModel) else weights_of(self._model)

    def load(self, weights: Weights) -> None:
        """Load weights into the model."""
        if weights:
            self._model.load_state_dict(weights)

    def can_load(self, architecture: Architecture) -> bool:
        return is_same_network(self.architecture, architecture) or can_load_by_name(architecture)

    def artifacts(self, weights: Weights) -> dict[str, bytes]:
        return self._formats.artifacts(weights)

    def teacher_network(self, teacher: TeacherModel) -> nn.Module:
        """Return a teacher's network, frozen, on the model's device and over the labels of its task."""
        task = teacher.task or self.task
        network = self._network(teacher, task).to(self.device)
        network.requires_grad_(False)
        network.eval()
        if teacher.graph is None and teacher.task is not None and self._data is not None:
            check_fits(network, self._data.x[:1].to(self.device), classes=task.classes)
        if task.labels != self.task.labels:
            network = LabelMapped(network, theirs=task.labels, ours=self.task.labels)
        return network

    def evaluate(self, weights: Weights, teacher: TeacherModel | None = None) -> EvaluationResult:
        if teacher is not None:
            network = self.teacher_network(teacher)
        elif weights:
            network = self.teacher_network(TeacherModel(architecture=self.architecture, weights=weights))
        else:
            network = self._model
        start = time.perf_counter()
        evaluation = self._evaluate_network(network, strict=teacher is not None)
        return EvaluationResult(evaluation=evaluation, seconds=time.perf_counter() - start)

    def _evaluate_network(self, network: nn.Module, *, strict: bool) -> Evaluation:
        if self._evaluate is not None:
            return self._evaluate(network)
        assert self._data is not None
        assert self._digest is not None
        return evaluate(
            network,
            self._data.batches(self.device),
            classes=self.task.classes,
            test_set=self._digest,
            runtime=self.runtime,
            strict=strict,
        )

    def _network(self, teacher: TeacherModel, task: Task) -> nn.Module:
        if teacher.graph is not None:
            return self._graph_network(teacher.graph, task)
        if is_same_network(self.architecture, teacher.architecture):
            network = copy.deepcopy(self._model)
        else:
            network = make_network(teacher.architecture.name, teacher.architecture.arguments)
        network.load_state_dict(teacher.weights)
        return network

    def _graph_network(self, graph: bytes, task: Task) -> OnnxModel:
        """Return a graph as a network; its process, slow to start, is kept from the evaluation to the phase."""
        key = graph, task.input_shape, task.classes  # two records may describe one graph differently
        network = self._graphs.pop(key, None) or OnnxModel(graph, input_shape=task.input_shape, classes=task.classes)
        self._graphs[key] = network
        if len(self._graphs) > MAX_ONNX_WORKERS:
            del self._graphs[next(iter(self._graphs))]  # its process ends when nothing refers to it
        return network


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
