"""Run an owner's model, and the models of others, on the owner's device and data and over the owner's labels."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Argument
from kuber.domain.task import Task
from kuber.entity.answer_check import Answers, check_answers, check_answers_to_zeros
from kuber.entity.architecture_identity import describe_model, is_same_network
from kuber.entity.export_formats import ExportFormats
from kuber.entity.validation_data import LabelledData, Validation
from kuber.entity.work.learner import TeacherModel
from kuber.entity.work.steps import EvaluationResult
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.architectures import make_network
from kuber.learning.compatibility import can_load_by_name, check_fits
from kuber.learning.evaluation import evaluate, evaluation_mode, labelled_logits
from kuber.learning.model_call import (
    Collate,
    Inputs,
    LogitsModel,
    as_floating,
    described,
    floating_dtype,
    split_batch,
    to_device,
)
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.priors import PriorAdjusted
from kuber.learning.random_state import kept_random_state
from kuber.learning.runtime import Runtime
from kuber.learning.swapped_network import SwappedNetwork
from kuber.learning.teachers import LabelMapped, graph_of
from kuber.learning.weight_checks import check_initialised
from kuber.learning.weights import Weights, load_weights, state_tensors, swapped_weights, weights_of
from kuber.learning.wrappers import unwrap

MAX_ONNX_WORKERS = 8  # graphs whose processes are kept running

MAX_SLOWNESS = 100  # times that a graph, on one core, may be slower than the owner's model

EvaluateFn = Callable[[nn.Module], Evaluation]


class ModelAdapter:
    """The `ModelPort` of a model that its owner trains."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        architecture: str | None,
        arguments: dict[str, Argument] | None,
        validation: Validation | LabelledData | None,
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
        self._given = model if judged is None else judged
        self._judged = unwrap(self._given)
        self._trained = unwrap(model)
        if not isinstance(validation, LabelledData | None):
            validation = LabelledData(validation, collate)
        self._data: LabelledData | None = validation
        if self._data is not None:
            self._data.check(task)
        self._digest = None if self._data is None else self._data.digest
        self._evaluate = evaluate
        self._collate = collate
        self._answers = self._check_answers()
        self._network = LogitsModel(self._judged, task.classes)
        samples: Any = None if self._data is None else self._inputs_for(self._judged)(self._data.first(1))
        self.architecture = describe_model(self._judged, architecture, arguments, task=task, samples=samples)
        samples = None if self._data is None else self._inputs_for(self._judged)(self._data.spread(16))
        self._formats = ExportFormats(self._judged, task, samples, formats, returns_logits=self._answers.plain)
        self._own_seconds = 0.0  # of the last evaluation of the owner's model
        self._graphs: dict[tuple[bytes, tuple[int, ...], int], OnnxModel] = {}  # least recently used first

    @property
    def data(self) -> LabelledData | None:
        """Validation data, for the adapter of another model; None where a function evaluates."""
        return self._data

    def become(self, other: Self) -> None:
        """Take the place of this object as the adapter of another model."""
        vars(self).update(vars(other))

    @property
    def proxy_of(self) -> None:
        """None: an owner's model is exchanged itself."""

    @property
    def logits_network(self) -> nn.Module:
        """The judged model, as a network that returns logits, shape (batch, classes)."""
        return self._judged if self._answers.plain else self._network

    @property
    def device(self) -> torch.device:
        """Device of the model: that of its first parameter or buffer."""
        first = next(self._judged.parameters(), next(self._judged.buffers(), None))
        return torch.device("cpu") if first is None else first.device

    @property
    def runtime(self) -> Runtime:
        threads = torch.get_num_threads()
        return Runtime(device=str(self.device), precision="float32", threads=threads, channels_last=False)

    @property
    def sample_count(self) -> int | None:
        return None if self.class_counts is None else sum(self.class_counts)

    def split(self, batch: Any) -> tuple[Any, Tensor]:
        """Return the inputs, on the model's device and in its dtype, and the labels of a batch of the owner's."""
        inputs, labels = split_batch(batch, self._collate)
        return self._inputs_for(self._judged)(to_device(inputs, self.device)), labels.to(self.device)

    def weights(self) -> Weights:
        """Return a copy of the judged model's weights; none for an ONNX graph."""
        return {} if isinstance(self._judged, OnnxModel) else weights_of(self._judged)

    def load(self, weights: Weights) -> None:
        """Load weights into the judged model, and into the trained one where its tensors are the same."""
        if not weights:
            return
        load_weights(self._judged, weights)
        if self._trained is not self._judged and _shapes(state_tensors(self._trained)) == _shapes(weights):
            load_weights(self._trained, weights)

    def can_load(self, architecture: Architecture) -> bool:
        return is_same_network(self.architecture, architecture) or can_load_by_name(architecture)

    def check_weights_travel(self, strategy: str) -> None:
        """Raise SettingsError unless the model is published as weights, which this strategy averages."""
        if WEIGHTS not in self._formats.kinds:
            raise SettingsError(
                f"The strategy {strategy} averages weights, but this model is published as a graph only; choose "
                "another strategy, such as exchange."
            )

    def artifacts(self, weights: Weights) -> dict[str, bytes]:
        return self._formats.artifacts(weights)

    def teacher_network(self, teacher: TeacherModel) -> nn.Module:
        """Return a teacher's network, frozen, on the model's device and over the labels of its task.

        Raises IncompatibleKnowledgeError when it does not fit the validation data.
        """
        task = teacher.task or self.task
        network = self._teacher_network(teacher, task)
        if teacher.graph is None and teacher.task is not None and self._data is not None:
            probe = self._inputs_for(network)(to_device(self._data.first(1), self.device))
            check_fits(network, probe, classes=task.classes)
        if task.labels != self.task.labels:
            network = LabelMapped(network, theirs=task.labels, ours=self.task.labels)
        return network

    def evaluate(self, weights: Weights | None = None, teacher: TeacherModel | None = None) -> EvaluationResult:
        """Evaluate a teacher, or the model with these weights; without weights, the model as it is, uncopied."""
        start = time.perf_counter()
        if teacher is None:
            with swapped_weights(self._judged, weights) if weights else nullcontext():
                evaluation = self._evaluate_own()
            self._own_seconds = time.perf_counter() - start
        else:
            evaluation = self._evaluate_teacher(teacher)
        return EvaluationResult(evaluation=evaluation, seconds=time.perf_counter() - start)

    def evaluate_shifted(self, teacher: TeacherModel, shift: Tensor) -> Evaluation:
        """Evaluate a teacher whose logits get a shift, shape (classes,). Raises KnowledgeError."""
        inner = self._timed(self.teacher_network(teacher))
        network = PriorAdjusted(inner, shift.to(self.device))
        if self._evaluate is not None:
            return self._call_evaluate(network)
        return self._count(network, self._inputs_for(inner), strict=True)

    def evaluate_alike(self, model: nn.Module, data: LabelledData | None = None) -> Evaluation:
        """Evaluate another model of the owner's, on the validation data or on others of the same task."""
        used = data or self._data
        assert used is not None, "a function evaluates, which counts no single answers"
        dtype = None if self._answers.as_given else floating_dtype(model)
        network = LogitsModel(unwrap(model), self.task.classes)
        return self._count(network, partial(as_floating, dtype=dtype), strict=False, data=used)

    def answers(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return a network's logits for the validation data as the owner's model takes them, and the labels."""
        assert self._data is not None, "a function evaluates, which shows no logits"
        prepare = self._inputs_for(self._judged)
        batches = ((prepare(inputs), labels) for inputs, labels in self._data.batches(self.device))
        return labelled_logits(network, batches, runtime=self.runtime)

    def _check_answers(self) -> Answers:
        if not isinstance(self._judged, OnnxModel):
            check_initialised(self._judged)
        if self._data is not None:
            return check_answers(self._judged, self.task, self._data, self.device)
        return check_answers_to_zeros(self._judged, self.task, self.device)

    def _evaluate_own(self) -> Evaluation:
        if self._evaluate is not None:
            return self._call_evaluate(self._given)
        return self._count(self._network, self._inputs_for(self._judged), strict=True)

    def _evaluate_teacher(self, teacher: TeacherModel) -> Evaluation:
        """Evaluate a teacher. Raises KnowledgeError for what is the teacher's fault, and only for that."""
        if self._evaluate is None:
            network = self._timed(self.teacher_network(teacher))
            return self._count(network, self._inputs_for(network), strict=True)
        if self._is_own(teacher) and (teacher.task is None or teacher.task.labels == self.task.labels):
            with swapped_weights(self._judged, teacher.weights):
                return self._call_evaluate(self._given)
        return self._call_evaluate(self._timed(self.teacher_network(teacher)))

    def _timed(self, network: nn.Module) -> nn.Module:
        """Return a network that, if it is a graph, may take the time of one evaluation."""
        graph = graph_of(network)
        if graph is not None:
            graph.begin_evaluation(at_least=MAX_SLOWNESS * self._own_seconds)
        return network

    def _call_evaluate(self, network: nn.Module) -> Evaluation:
        """Call the owner's function. Raises SettingsError unless it returns an evaluation over the task's labels."""
        assert self._evaluate is not None
        with evaluation_mode(network):
            evaluation = self._evaluate(network)
        if not isinstance(evaluation, Evaluation):
            raise SettingsError(
                f"The function evaluate must return a kuber.Evaluation, not a {type(evaluation).__name__}."
            )
        if len(evaluation.total) != self.task.classes:
            raise SettingsError(
                f"The function evaluate returns counts of {len(evaluation.total)} classes, but the task has "
                f"{self.task.classes} labels."
            )
        return evaluation

    def _count(
        self,
        network: nn.Module,
        prepare: Callable[[Inputs], Inputs],
        *,
        strict: bool,
        data: LabelledData | None = None,
    ) -> Evaluation:
        used = data or self._data
        assert used is not None
        digest = self._digest if used is self._data else used.digest
        assert digest is not None
        return evaluate(
            network,
            ((prepare(inputs), labels) for inputs, labels in used.batches(self.device)),
            classes=self.task.classes,
            test_set=digest,
            runtime=self.runtime,
            strict=strict,
        )

    def _inputs_for(self, network: nn.Module) -> Callable[[Inputs], Inputs]:
        """Return the function that gives inputs the dtype that a network takes."""
        if network is self._judged:
            dtype = None if self._answers.as_given else floating_dtype(network)
        else:
            dtype = None if isinstance(network, SwappedNetwork) else (floating_dtype(network) or torch.float32)
        return partial(as_floating, dtype=dtype)

    def _is_own(self, teacher: TeacherModel) -> bool:
        return teacher.graph is None and is_same_network(self.architecture, teacher.architecture)

    def _teacher_network(self, teacher: TeacherModel, task: Task) -> nn.Module:
        if self._is_own(teacher):
            return SwappedNetwork(
                self._judged, teacher.weights, classes=task.classes, as_given=self._answers.as_given
            )
        if self._data is not None and not isinstance(self._data.samples, Tensor):
            raise IncompatibleKnowledgeError(
                f"It takes one tensor, but the validation data here are {described(self._data.first(1))}."
            )
        if teacher.graph is not None:
            return self._graph_network(teacher.graph, task)
        with kept_random_state(), torch.device("cpu"):
            network = make_network(teacher.architecture.name, teacher.architecture.arguments)
        load_weights(network, teacher.weights)
        network.to(self.device).requires_grad_(False)
        for module in network.modules():
            module.training = False
        return network

    def _graph_network(self, graph: bytes, task: Task) -> OnnxModel:
        """Return a graph as a network; its process, slow to start, is kept from the evaluation to the phase."""
        key = graph, task.input_shape, task.classes  # two records may describe one graph differently
        network = self._graphs.pop(key, None) or OnnxModel(graph, input_shape=task.input_shape, classes=task.classes)
        self._graphs[key] = network
        if len(self._graphs) > MAX_ONNX_WORKERS:
            del self._graphs[next(iter(self._graphs))]  # its process ends when nothing refers to it
        return network


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
