"""A data set as plain tensors, for training loops of the user's own."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kuber.data.batches import Normalisation
from kuber.data.datasets import load_dataset
from kuber.settings import Settings, expand_home


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensors:
    """A data set: pairs of samples, normalised, float32 of shape (n, *sample), and labels, int64 of shape (n,)."""

    labels: tuple[str, ...]  # class names, in order of the class numbers
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def __repr__(self) -> str:
        (x, _), (x_test, _) = self.train, self.test
        return (
            f"<Tensors: {len(x):,} training and {len(x_test):,} test samples of shape {tuple(x.shape[1:])}, "
            f"{len(self.labels)} classes>"
        )


def load_tensors(name: str, *, data_dir: Path | None = None, cache_dir: Path | None = None) -> Tensors:
    """Return a data set by the name for `kuber run --dataset`. Raises DatasetError when it cannot be loaded."""
    default: Path = Settings.model_fields["cache_dir"].default
    data = load_dataset(name, data_dir=data_dir, cache_dir=expand_home(cache_dir or default))
    normalise = Normalisation(data.mean, data.std)
    train, test = (
        (normalise(part.images().copy()).contiguous(), torch.from_numpy(part.labels.copy()))
        for part in (data.train, data.test)
    )
    return Tensors(labels=data.labels, train=train, test=test)
