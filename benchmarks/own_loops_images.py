"""Images for own_loops.py: ResNet-18 and a small vision transformer on CIFAR-10."""

from itertools import pairwise

import numpy as np
import torch
from own_loops_owners import ImageLoop, Site, Workload
from torch import nn

import kuber

POOL, TEST = 4000, 2000


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


def resnet18(classes: int) -> nn.Module:
    """Return ResNet-18 of half the width, whose first convolution halves the image: a seed takes minutes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    widths = (32, 32, 32, 64, 64, 128, 128, 256, 256)
    for inside, outside in pairwise(widths):
        layers.append(Block(inside, outside, 1 if inside == outside else 2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, classes))


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels, positions, four layers, the mean (Dosovitskiy et al., arXiv 2010.11929)."""

    def __init__(self, classes: int, width: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(64, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2) + self.positions).mean(1))


def images(kind: str, draws: np.random.Generator, samples: int) -> Workload:
    """Return some thousand images of CIFAR-10."""
    data = kuber.load_tensors("cifar10")
    chosen = draws.permutation(len(data.train[0]))[: min(POOL, samples)]
    tested = draws.permutation(len(data.test[0]))[: min(TEST, samples)]

    def owner(site: Site, rounds: int) -> ImageLoop:
        if kind == "resnet18":
            return ImageLoop(site, resnet18(site.classes), rounds, epochs=3, learning_rate=2e-3)
        return ImageLoop(site, VisionTransformer(site.classes), rounds, epochs=3, learning_rate=1e-3)

    pool, test = (tuple(part[rows] for part in pair) for pair, rows in ((data.train, chosen), (data.test, tested)))
    return Workload(list(data.labels), (3, 32, 32), pool, test, owner, rounds=6)


WORKLOADS = {kind: lambda draws, samples, kind=kind: images(kind, draws, samples) for kind in ("resnet18", "vit")}
