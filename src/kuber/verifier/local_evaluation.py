"""Evaluation of a published model on the user's own data, without joining as an entity."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kuber.data.batches import Normalisation
from kuber.data.class_names import match_classes
from kuber.data.datasets import BUILT_IN
from kuber.data.decoded import Array
from kuber.data.image_folder import read_images
from kuber.data.npz import read_whole
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Knowledge
from kuber.domain.ports import Vault
from kuber.domain.prior import Frequencies, frequencies, uniform
from kuber.domain.stated_prior import stated_prior
from kuber.errors import DatasetError, IncompatibleKnowledgeError
from kuber.learning.compatibility import runnable_kind
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.priors import PriorAdjusted, log_ratio
from kuber.learning.runtime import Runtime, build
from kuber.learning.weights import load

EvaluationPrior = Literal["as-published", "own", "uniform"]


def evaluate_locally(
    knowledge: Knowledge,
    vault: Vault,
    data: Path,
    *,
    normalisation: Normalisation | None = None,
    prior: EvaluationPrior = "as-published",
) -> Evaluation:
    """Pull a model and count its correct answers on the user's data.

    `data` is an .npz file with x and y, or a folder with a subfolder of images for each class. Classes are matched by
    `match_classes`. Without `normalisation` the samples are normalised by `default_normalisation`. With a `prior` the
    logits are adjusted to equal classes, or, as "own", to the frequencies of the labels of the data. Raises
    DatasetError when the data do not fit the task, KnowledgeError when the model is invalid or cannot be run, or its
    record does not state the prior that its logits carry.
    """
    task = knowledge.task
    kind = runnable_kind(knowledge, task)
    samples, labels = load_samples(data, task.input_shape, task.labels)
    normalise = normalisation or default_normalisation(knowledge)
    if len(normalise.mean) not in (1, task.input_shape[0]):
        raise DatasetError(f"Give {task.input_shape[0]} means, one for each channel, not {len(normalise.mean)}.")
    runtime = Runtime(
        device="cpu", precision="float32", threads=torch.get_num_threads(), channels_last=len(task.input_shape) == 3
    )
    blob = vault.get(knowledge.artifacts[kind].digest)
    network: nn.Module = (
        OnnxModel(blob, input_shape=task.input_shape, classes=task.classes)
        if kind == ONNX
        else build(knowledge.architecture, load(blob, knowledge.architecture), runtime)
    )

    if prior != "as-published":
        counts = np.bincount(labels, minlength=task.classes).tolist()
        target = uniform(task.classes) if prior == "uniform" else frequencies(counts)
        network = PriorAdjusted(network, log_ratio(_stated(knowledge), target))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(labels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            yield normalise(samples[rows]), torch.from_numpy(labels[rows])

    test_set = Digest.of(np.ascontiguousarray(samples).data.cast("B"), labels.data.cast("B"))
    return evaluate(network, batches(), classes=task.classes, test_set=test_set, runtime=runtime, strict=True)


def _stated(knowledge: Knowledge) -> Frequencies:
    carried = stated_prior(knowledge)
    if carried is None:
        raise IncompatibleKnowledgeError(
            f"The record {knowledge.id} does not state which class frequencies the logits of its model have, so they "
            "cannot be adjusted; leave out the prior."
        )
    return carried


def default_normalisation(knowledge: Knowledge) -> Normalisation:
    """Return that of the built-in data set with the task's name; for others, one that scales pixels to 0..1."""
    dataset = BUILT_IN.get(knowledge.task.name)
    return Normalisation(dataset.mean, dataset.std) if dataset else Normalisation((0.0,), (1.0,))


def load_samples(data: Path, shape: tuple[int, ...], classes: tuple[str, ...]) -> tuple[Array, NDArray[np.int64]]:
    """Return the samples, and the class of each as an index into `classes`."""
    samples: Array
    if data.is_dir():
        samples, numbers, names = read_images(data, shape)
    else:
        samples, numbers, names = read_whole(data)
    if samples.shape[1:] != shape:
        raise DatasetError(
            f"The samples in {data} have shape {samples.shape[1:]}, but those of the task have {shape}."
        )
    present = np.unique(numbers).tolist()  # a class without samples need not be one of the task
    places = np.zeros(len(names), np.int64)
    places[present] = match_classes([names[number] for number in present], classes, source=data)
    return samples, places[numbers]
