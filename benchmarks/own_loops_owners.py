"""Owners for own_loops.py: a site's data, and the training loops that a person would write for it.

Each loop is what the owner has without KUber, plus one term: `teachers.loss`. `teachers` is None alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

HOME = 0.9  # share of a class that its home sites have
VALIDATION = 0.25  # share of a site's samples
AUTOCAST = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # elsewhere bfloat16 takes many times as long as float32


@dataclass
class Site:
    """Samples and labels of one site."""

    number: int
    train: tuple[torch.Tensor, torch.Tensor]
    validation: tuple[torch.Tensor, torch.Tensor]
    classes: int

    @property
    def counts(self) -> list[int]:
        """Number of training samples of each class."""
        return torch.bincount(self.train[1], minlength=self.classes).tolist()


@dataclass
class Workload:
    """A prediction problem, its data, and who trains on it."""

    labels: list[str]
    input_shape: tuple[int, ...]
    pool: tuple[torch.Tensor, torch.Tensor]  # for the sites
    test: tuple[torch.Tensor, torch.Tensor]  # read by no decision
    owner: Callable[[Site, int], Any]  # of a site and the number of rounds
    rounds: int = 8


def divided(workload: Workload, sites: int, draws: np.random.Generator) -> list[Site]:
    """Divide the pool: each class has a home at one site or several, which have 90 % of it; the others share 10 %."""
    x, y = workload.pool
    classes, homes = len(workload.labels), min(sites, len(workload.labels))
    parts: list[tuple[list[int], list[int]]] = [([], []) for _ in range(sites)]
    for label in range(classes):
        rows = draws.permutation(np.flatnonzero(y.numpy() == label))
        at_home = np.array([site % homes == label % homes for site in range(sites)])
        shares = np.where(at_home, HOME / at_home.sum(), (1 - HOME) / max(1, (~at_home).sum()))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(int)
        for (train, validation), own in zip(parts, np.split(rows, ends[:-1]), strict=True):
            cut = round(VALIDATION * len(own))
            validation += own[:cut].tolist()
            train += own[cut:].tolist()
    return [
        Site(number, (x[train], y[train]), (x[validation], y[validation]), classes)
        for number, (train, validation) in enumerate(parts)
    ]


@dataclass
class PlainLoop:
    """Adam or AdamW with a constant learning rate."""

    site: Site
    model: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int  # in a round
    batch_size: int = 32
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of kuber.Entity

    @property
    def judged(self) -> nn.Module:
        """The module that the owner uses."""
        return self.model

    def train(self, teachers: Any, entity: Any) -> None:
        """Train for a round."""
        x, y = self.site.train
        self.model.train()
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x)).split(self.batch_size):
                logits = self.model(x[rows])
                loss = nn.functional.cross_entropy(logits, y[rows])
                if teachers is not None:
                    loss = loss + teachers.loss(logits, x[rows], y[rows])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()


class ImageLoop:
    """AdamW, cosine to 0 over all rounds, autocast, shifted and mirrored images, and an EMA copy, which is used."""

    def __init__(self, site: Site, model: nn.Module, rounds: int, *, epochs: int, learning_rate: float) -> None:
        self.site, self.model, self.epochs, self.batch_size = site, model, epochs, 64
        self.optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.05)
        steps = rounds * epochs * -(-len(site.train[0]) // self.batch_size)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, learning_rate, total_steps=steps, pct_start=0.1
        )
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.98)
        self.ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.options = {"judged": self.judged, "restores": [self.ema]}

    @property
    def judged(self) -> nn.Module:
        """The module that the owner uses."""
        return self.ema.module

    def train(self, teachers: Any, entity: Any) -> None:
        """Train for a round."""
        x, y = self.site.train
        self.model.train()
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x)).split(self.batch_size):
                images = augmented(x[rows])
                with torch.autocast("cpu", torch.bfloat16, enabled=AUTOCAST):
                    logits = self.model(images)
                    loss = nn.functional.cross_entropy(logits, y[rows])
                    if teachers is not None:
                        loss = loss + teachers.loss(logits, images, y[rows])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
                self.ema.update_parameters(self.model)


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Return the images, shifted, those of a batch by the same up to 4 pixels; half of the batches are mirrored."""
    x = torch.roll(x, torch.randint(-4, 5, (2,)).tolist(), (2, 3))
    return x.flip(3) if torch.rand(()) < 0.5 else x


class TreeLoop:
    """Gradient-boosted trees, fitted anew in each round, and given to the entity as a graph."""

    optimizer = None

    def __init__(self, site: Site) -> None:
        self.site, self.options = site, {}
        self.model = self.fitted(*site.train, torch.ones(len(site.train[0])))

    @property
    def judged(self) -> nn.Module:
        """The module that the owner uses."""
        return self.model

    def train(self, teachers: Any, entity: Any) -> None:
        """Fit on the labels and, beside them, on the teachers' probabilities as weighted labels."""
        if not teachers:
            return  # the same trees again
        x, y = self.site.train
        guesses = teachers(x).softmax(1)
        each = torch.arange(self.site.classes).repeat(len(x))
        weights = torch.cat([torch.ones(len(x)), guesses.flatten()])
        self.model = self.fitted(
            torch.cat([x, x.repeat_interleave(self.site.classes, 0)]), torch.cat([y, each]), weights
        )
        entity.replace(self.model)

    def fitted(self, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> nn.Module:
        """Return trees that know all classes: each class also gets a mean sample of almost no weight."""
        from skl2onnx import to_onnx
        from sklearn.ensemble import GradientBoostingClassifier

        import kuber

        classes = self.site.classes
        sure = weights > 0.01
        x = torch.cat([x[sure], x.mean(0).expand(classes, -1)]).numpy()
        y = torch.cat([y[sure], torch.arange(classes)]).numpy()
        trees = GradientBoostingClassifier(
            n_estimators=30, max_depth=3, subsample=0.8, max_features="sqrt", random_state=0
        )
        trees.fit(x, y, sample_weight=torch.cat([weights[sure], torch.full((classes,), 1e-3)]).numpy())
        graph = to_onnx(trees, x[:1], options={"zipmap": False}).SerializeToString()
        return kuber.onnx.OnnxModel(graph, input_shape=x.shape[1:], classes=classes)
