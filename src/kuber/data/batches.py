"""Batches of samples: shuffled and augmented for training, in order for evaluation, always normalised.

Samples are fetched and augmented many batches at a time as arrays: about 10 µs an image of CIFAR-10, where a
transform for each sample costs ten times that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kuber.data.samples import Samples

SHIFT = 2  # pixels, at most, in each direction
_CHUNK = 512  # samples fetched and augmented together


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels scaled to 0..1 (of float samples: as they are)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, samples: NDArray[np.generic]) -> Tensor:
        """Normalised float32 tensors of the same shape; image batches come out channels last in memory."""
        batch = torch.from_numpy(samples)
        scale, offset = _line(self, 255.0 if batch.dtype == torch.uint8 else 1.0, batch.dim())
        normalised = torch.mul(batch, scale).add_(offset)
        return normalised.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else normalised


@lru_cache(maxsize=64)  # to make them takes longer than to apply them to a small batch
def _line(normalisation: Normalisation, unit: float, dimensions: int) -> tuple[Tensor, Tensor]:
    """What batches of so many dimensions are multiplied by, and what is added then."""
    shape = (1, len(normalisation.mean), *(1,) * (dimensions - 2))
    with torch.inference_mode(False):  # whoever asks first, training uses them too
        scale = torch.tensor([1 / (unit * std) for std in normalisation.std], dtype=torch.float32)
        offset = torch.tensor([-m / s for m, s in zip(normalisation.mean, normalisation.std, strict=True)])
        return scale.view(shape), offset.view(shape)


def training_batches(
    samples: Samples,
    *,
    batch_size: int,
    normalisation: Normalisation,
    generator: torch.Generator,
    augment: bool = True,
    flip: bool = True,
    targets: Tensor | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """One epoch in a shuffled order: batches (x, y), or (x, y, targets of the same samples).

    With `augment`, images are shifted by up to SHIFT pixels in each direction (black comes in) and, with `flip`,
    every second one is mirrored; both drawn from `generator`. Vectors are left as they are. A last batch of a single
    sample is left out, since BatchNorm cannot train on it.
    """
    order = torch.randperm(len(samples), generator=generator)
    if len(order) % batch_size == 1:
        order = order[:-1]
    chunk = max(1, _CHUNK // batch_size) * batch_size
    for positions in torch.split(order, chunk):
        images = samples.images(positions.numpy())
        if augment and images.ndim == 4:
            images = _augmented(images, generator, flip)
        labels = torch.from_numpy(samples.labels[positions.numpy()])
        for first in range(0, len(positions), batch_size):
            rows = slice(first, first + batch_size)
            batch = normalisation(images[rows]), labels[rows]
            yield batch if targets is None else (*batch, targets[positions[rows]])


def ordered_batches(
    samples: Samples, *, batch_size: int, normalisation: Normalisation
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every sample once, in order and unaugmented: batches (x, y)."""
    for first in range(0, len(samples), batch_size):
        positions = np.arange(first, min(first + batch_size, len(samples)))
        yield normalisation(samples.images(positions)), torch.from_numpy(samples.labels[positions])


def _augmented(images: NDArray[np.generic], generator: torch.Generator, flip: bool) -> NDArray[np.generic]:
    """Images of shape (n, channels, height, width), each shifted and perhaps mirrored by its own draw."""
    count, channels, height, width = images.shape
    padded = np.zeros((count, channels, height + 2 * SHIFT, width + 2 * SHIFT), images.dtype)
    padded[:, :, SHIFT:-SHIFT, SHIFT:-SHIFT] = images
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    down, right = torch.randint(0, 2 * SHIFT + 1, (2, count), generator=generator).numpy()
    shifted = windows[np.arange(count), :, down, right]
    if flip:
        mirrored = (torch.rand(count, generator=generator) < 0.5).numpy()
        shifted[mirrored] = shifted[mirrored][..., ::-1]
    return shifted
