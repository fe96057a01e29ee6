"""Where a model of the user's own, and those of others, are run: in its labels, on its device, on its data."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Argument
from kuber.domain.task import Task
from kuber.entity.work.learner import TeacherModel
from kuber.entity.work.steps import EvaluationResult, Work
from kuber.errors import SettingsError
from kuber.learning.architectures import make_network
from kuber.learning.compatibility import can_load_by_name, check_fits
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.runtime import Runtime
from kuber.learning.teachers import LabelMapped
from kuber.learning.weights import Weights, manifest_of, weights_of

RUNNING = 8  # graphs whose processes are kept

Validation = Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor]
Evaluates = Callable[[nn.Module], Evaluation]


class LabelledData:
    """Samples and their labels, held in memory, in an order of their own."""

    def __init__(self, samples: Validation) -> None:
        """Takes two tensors, or batches of them: x of shape (batch, ...), y of shape (batch,)."""
        pairs: Any = [samples] if isinstance(samples, tuple) else list(samples)
        if not pairs or not all(len(pair) == 2 and all(isinstance(part, Tensor) for part in pair) for pair in pairs):
            raise SettingsError("Validation data are pairs of tensors, samples and labels, and at least one of them.")
        self.x = torch.cat([x for x, _ in pairs]).cpu()
        self.y = torch.cat([y for _, y in pairs]).cpu()
        if self.y.dim() != 1 or len(self.x) != len(self.y) or self.y.dtype.is_floating_point:
            raise SettingsError("Labels of validation data are whole numbers, one for each sample.")

    @property
    def digest(self) -> Digest:
        """Of shapes, dtypes, samples and labels, in order; the size of batches has no part in it."""
        told = f"{self.x.dtype} {tuple(self.x.shape)} {self.y.dtype}\n".encode()
        return Digest.of(told, _bytes(self.x), _bytes(self.y))

    def batches(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in zip(torch.split(self.x, EVALUATION_BATCH), torch.split(self.y, EVALUATION_BATCH), strict=True):
            yield x.to(device), y.to(device)


def test_set_digest(validation: Validation) -> Digest:
    """The digest of a common test set, for `Task(test_set=...)`; the size of batches has no part in it."""
    return LabelledData(validation).digest


class ModelAdapter:
    """The model of an entity whose loop is its own, and what it takes to evaluate and to listen to others."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        architecture: str | None,
        arguments: dict[str, Argument] | None,
        validation: Validation | None,
        evaluates: Evaluates | None,
    ) -> None:
        if (validation is None) == (evaluates is None):
            raise SettingsError("An entity needs either validation data or a function that evaluates a model.")
        self.model = model
        self.task = task
        self.labelled = None if validation is None else LabelledData(validation)
        self._evaluates = evaluates
        self._graphs: dict[tuple[bytes, tuple[int, ...], int], OnnxModel] = {}  # the least lately used first
        self._digest = None if self.labelled is None else self.labelled.digest
        if self.labelled is not None:
            self._check(self.labelled)
        self.architecture = _architecture(model, architecture, arguments)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((tensor.device for tensor in self.model.parameters()), torch.device("cpu"))

    def weights(self) -> Weights:
        """A copy of the model's; none of an ONNX graph."""
        return {} if isinstance(self.model, OnnxModel) else weights_of(self.model)

    def restore(self, weights: Weights) -> None:
        """Put weights back into the model."""
        if weights:
            self.model.load_state_dict(weights)

    def knows(self, architecture: Architecture) -> bool:
        """Whether weights of this architecture can be run here."""
        return architecture == self.architecture or can_load_by_name(architecture)

    def speaker(self, teacher: TeacherModel, task: Task) -> nn.Module:
        """A teacher's network in our labels, frozen, on our device."""
        network = self._network(teacher, task).to(self.device)
        network.requires_grad_(False)
        network.eval()
        if teacher.graph is None and teacher.task is not None and self.labelled is not None:
            check_fits(network, self.labelled.x[:1].to(self.device), classes=task.classes)
        if task.labels != self.task.labels:
            network = LabelMapped(network, theirs=task.labels, ours=self.task.labels)
        return network

    def evaluating(self, weights: Weights, teacher: TeacherModel | None) -> Work:
        """The work of an evaluation of our model with these weights, or of a teacher in our labels."""
        if teacher is not None:
            return self._work(self.speaker(teacher, teacher.task or self.task), strict=True)
        if not weights:
            return self._work(self.model, strict=False)
        ours = TeacherModel(architecture=self.architecture, weights=weights)
        return self._work(self.speaker(ours, self.task), strict=False)

    def evaluate(self, network: nn.Module, *, strict: bool = False) -> Evaluation:
        """What a network that speaks of our labels is worth. CorruptKnowledgeError when, strictly, it is nonsense."""
        if self._evaluates is not None:
            return self._evaluates(network)
        assert self.labelled is not None
        assert self._digest is not None
        return evaluate(
            network,
            self.labelled.batches(self.device),
            classes=self.task.classes,
            test_set=self._digest,
            runtime=Runtime(device=str(self.device), precision="float32", threads=1, channels_last=False),
            strict=strict,
        )

    def _work(self, network: nn.Module, *, strict: bool) -> Work:
        def function(progress: Callable[[float], None]) -> EvaluationResult:
            start = time.perf_counter()
            evaluation = self.evaluate(network, strict=strict)
            progress(1.0)
            return EvaluationResult(evaluation=evaluation, seconds=time.perf_counter() - start)

        return Work(function=function, arguments={}, cost=0.0)

    def _network(self, teacher: TeacherModel, task: Task) -> nn.Module:
        if teacher.graph is not None:
            return self._running(teacher.graph, task)
        if teacher.architecture == self.architecture:
            network = copy.deepcopy(self.model)
        else:
            network = make_network(teacher.architecture.name, teacher.architecture.arguments)
        network.load_state_dict(teacher.weights)
        return network

    def _running(self, graph: bytes, task: Task) -> OnnxModel:
        """A graph as a network. Starting its process takes long: it is evaluated first, and then spoken with."""
        key = graph, task.input_shape, task.classes  # two records may tell of one graph differently
        found = self._graphs.pop(key, None) or OnnxModel(graph, input_shape=task.input_shape, classes=task.classes)
        self._graphs[key] = found
        if len(self._graphs) > RUNNING:
            del self._graphs[next(iter(self._graphs))]  # its process ends when nobody else has it
        return found

    def _check(self, labelled: LabelledData) -> None:
        task = self.task
        if tuple(labelled.x.shape[1:]) != task.input_shape:
            raise SettingsError(
                f"Samples of the validation data have shape {tuple(labelled.x.shape[1:])}, and those of the task "
                f"{task.input_shape}."
            )
        if len(labelled.y) and (labelled.y.min() < 0 or labelled.y.max() >= task.classes):
            raise SettingsError(f"Labels of the validation data are whole numbers from 0 to {task.classes - 1}.")
        if task.test_set is not None and labelled.digest != task.test_set:
            raise SettingsError("The validation data are not the common test set that the task names by its digest.")


def _architecture(model: nn.Module, name: str | None, arguments: dict[str, Argument] | None) -> Architecture:
    if isinstance(model, OnnxModel):
        return Architecture(name=name or "onnx", arguments=arguments or {}, manifest={})
    weights = weights_of(model)
    manifest = manifest_of(weights)
    if name is not None:
        return Architecture(name=name, arguments=arguments or {}, manifest=manifest)
    # A class tells little of a network's sizes: what the tensors are keeps two networks of one class apart.
    sizes = "\n".join(f"{tensor} {spec.dtype} {spec.shape}" for tensor, spec in sorted(manifest.items()))
    kind = type(model)
    return Architecture(
        name=f"{kind.__module__}.{kind.__qualname__}"[-200:],
        arguments={"tensors": Digest.of(sizes.encode()).hex[:16]},
        manifest=manifest,
    )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
