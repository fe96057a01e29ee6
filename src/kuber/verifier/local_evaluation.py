"""What somebody's knowledge is worth on data of one's own, without being an entity and without training."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kuber.data.batches import Normalisation
from kuber.data.datasets import BUILT_IN
from kuber.data.image_folder import read_images
from kuber.data.npz import read_whole
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import ONNX, Knowledge
from kuber.domain.ports import Vault
from kuber.errors import DatasetError
from kuber.learning.compatibility import runnable_kind
from kuber.learning.evaluation import EVALUATION_BATCH, evaluate
from kuber.learning.onnx_model import OnnxModel
from kuber.learning.runtime import Runtime, build
from kuber.learning.weights import load

Numbers = NDArray[np.generic]


def appraise(
    knowledge: Knowledge, vault: Vault, data: Path, *, normalisation: Normalisation | None = None
) -> Evaluation:
    """Pull a model and count its right answers on an .npz file (x, y) or a folder of a folder of pictures a class.

    Classes are matched by their names. Samples are normalised as `normalisation` says; else, where the task has the
    name of a data set that KUber knows, as for that; else pixels are scaled to 0..1 and floats left as they are.
    Raises DatasetError when the data do not fit the task, KnowledgeError when the model is unsound or cannot be run.
    """
    task = knowledge.task
    form = runnable_kind(knowledge, task)
    samples, labels = _samples(data, task.input_shape, task.labels)
    normalise = normalisation or usual_normalisation(knowledge)
    if len(normalise.mean) not in (1, task.input_shape[0]):
        raise DatasetError(
            f"There are {len(normalise.mean)} means for samples of {task.input_shape[0]} channels; give one for each."
        )
    runtime = Runtime(
        device="cpu", precision="float32", threads=torch.get_num_threads(), channels_last=len(task.input_shape) == 3
    )
    blob = vault.get(knowledge.artifacts[form].digest)
    network = (
        OnnxModel(blob, input_shape=task.input_shape, classes=task.classes)
        if form == ONNX
        else build(knowledge.architecture, load(blob, knowledge.architecture), runtime)
    )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(labels), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            yield normalise(samples[rows]), torch.from_numpy(labels[rows])

    test_set = Digest.of(np.ascontiguousarray(samples).data.cast("B"), labels.data.cast("B"))
    return evaluate(network, batches(), classes=task.classes, test_set=test_set, runtime=runtime, strict=True)


def usual_normalisation(knowledge: Knowledge) -> Normalisation:
    """That of the data set which the task is called after; none at all for other tasks."""
    known = BUILT_IN.get(knowledge.task.name)
    return Normalisation(known.mean, known.std) if known else Normalisation((0.0,), (1.0,))


def _samples(data: Path, shape: tuple[int, ...], wanted: tuple[str, ...]) -> tuple[Numbers, NDArray[np.int64]]:
    """Samples of this shape, and their classes as places in `wanted`."""
    samples: Numbers
    if data.is_dir():
        samples, numbers, names = read_images(data, shape)
    else:
        samples, numbers, names = read_whole(data)
    if samples.shape[1:] != shape:
        raise DatasetError(f"The samples in {data} have shape {samples.shape[1:]}, and those of the task {shape}.")
    if all(name.isdecimal() and int(name) < len(wanted) for name in names):
        names = tuple(wanted[int(name)] for name in names)  # numbers of classes, not names
    strange = [name for name in names if name not in wanted]
    if strange:
        raise DatasetError(
            f"The task has no class {strange[0]!r}; it has: {', '.join(wanted[:20])}{', ...' if wanted[20:] else ''}."
        )
    places = np.array([wanted.index(name) for name in names], np.int64)
    return samples, places[numbers]
