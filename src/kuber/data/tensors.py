"""A data set as plain tensors, for loops that are not KUber's."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kuber.data.batches import Normalisation
from kuber.data.datasets import load
from kuber.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensors:
    """Samples, normalised, as float32 of shape (n, *sample), channels first; labels as int64 of shape (n,)."""

    labels: tuple[str, ...]  # names of the classes, in order of their numbers
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load_tensors(name: str, *, data_dir: Path | None = None, cache_dir: Path | None = None) -> Tensors:
    """A data set of those that `kuber run --dataset` takes. Raises DatasetError when it cannot be had."""
    default: Path = Settings.model_fields["cache_dir"].default
    data = load(name, data_dir=data_dir, cache_dir=(cache_dir or default).expanduser())
    normalise = Normalisation(data.mean, data.std)
    train, test = (
        (normalise(part.images().copy()).contiguous(), torch.from_numpy(part.labels.copy()))
        for part in (data.train, data.test)
    )
    return Tensors(labels=data.labels, train=train, test=test)
