"""Owners of models: the traits that real models and loops have, each as small as it can be."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import kuber
from kuber.strategies import Exchange

SHAPE, CLASSES = (5, 4), 3
TASK = kuber.Task(name="shapes", labels=("a", "b", "c"), input_shape=SHAPE)
SAMPLES, BATCH, EPOCHS = 24, 8, 4


class Generous(Exchange):
    """Publishes after each phase, takes every teacher, and trains with plain cross-entropy."""

    def local_phase(self):
        return kuber.strategies.LocalPhase()

    def publishes(self, situation):
        return True

    def choose(self, candidates, method, situation):
        return candidates


def samples(count, seed):
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    return torch.randn(count, *SHAPE, generator=draws) + y.view(-1, 1, 1), y


class Data(Dataset):
    """Private data that call `half_read` when half of all epochs have been read."""

    def __init__(self, half_read: Callable[[], None]) -> None:
        self.x, self.y = samples(SAMPLES, 0)
        self._half_read = half_read
        self._reads = 0

    def __len__(self):
        return SAMPLES

    def __getitem__(self, place):
        self._reads += 1
        if self._reads == SAMPLES * EPOCHS // 2:
            self._half_read()
        return self.x[place], self.y[place]


class Plain(nn.Module):
    """A usual small network; the dropout layer makes the random state matter."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8)
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class FrozenBatchNorm(Plain):
    """Holds its BatchNorm layer in evaluation mode, whatever calls `train`."""

    def train(self, mode=True):
        super().train(mode)
        self.body[2].eval()
        return self


class WeightNorm(Plain):
    def __init__(self):
        super().__init__()
        self.head = nn.utils.parametrizations.weight_norm(self.head)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an older form, which many owners have
            self.body[1] = nn.utils.weight_norm(self.body[1])


class KeptActivation(Plain):
    """Keeps an activation with its graph, for a term of the loss."""

    def forward(self, x):
        self.kept = self.body(x)
        return self.head(self.kept)


class Bfloat16(Plain):
    def __init__(self):
        super().__init__()
        self.bfloat16()

    def forward(self, x):
        return super().forward(x.to(self.head.weight.dtype))


class Tied(Plain):
    """One tensor under two names."""

    def __init__(self):
        super().__init__()
        self.again = nn.Linear(20, 8)
        self.again.weight = self.body[1].weight

    def forward(self, x):
        return self.head(self.body(x) + self.again(x.flatten(1)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.LSTM(4, 8, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        start = torch.zeros(2, len(x), 8)
        return self.head(self.body(x, (start, start))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean(1))


class VisionTransformer(Encoder):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))

    def forward(self, x):
        return self.head(self.body(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0])


class LowRank(nn.Module):
    """A frozen layer with an adapter that is trained."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(0.1 * torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


class Lora(Plain):
    def __init__(self):
        super().__init__()
        self.body[1] = LowRank(self.body[1])


@dataclass(frozen=True, kw_only=True)
class Trait:
    """One thing that real models or loops have."""

    net: Callable[[], nn.Module] = Plain
    wrap: Callable[[nn.Module], nn.Module] = lambda net: net
    autocast: bool = False
    scaler: bool = False
    accumulate: int = 1
    ema: bool = False
    scheduler: bool = False
    unfreezes: bool = False  # the body, in the middle


TRAITS = {
    "frozen BatchNorm": Trait(net=FrozenBatchNorm),
    "weight_norm": Trait(net=WeightNorm),
    "kept activation": Trait(net=KeptActivation),
    "compiled": Trait(wrap=lambda net: torch.compile(net, backend="eager")),
    "bf16": Trait(net=Bfloat16),
    "autocast": Trait(autocast=True),
    "AMP scaler": Trait(autocast=True, scaler=True),
    "gradient accumulation": Trait(accumulate=2),
    "EMA": Trait(ema=True),
    "scheduler": Trait(scheduler=True),
    "unfreezing": Trait(unfreezes=True),
    "DataParallel": Trait(wrap=nn.DataParallel),
    "tied weights": Trait(net=Tied),
    "LSTM": Trait(net=Lstm),
    "TransformerEncoder": Trait(net=Encoder),
    "ViT with len(x)": Trait(net=VisionTransformer),
    "LoRA": Trait(net=Lora),
}


class Owner:
    """What one owner holds: model, optimizer, and what the trait adds."""

    def __init__(self, trait: Trait, *, seed: int = 0, whole: bool = False) -> None:
        """Make them from a seed; with `whole` the optimizer has frozen parameters too, from the start."""
        torch.manual_seed(seed)
        self.trait = trait
        self.net = trait.net()
        self.net.train()
        if trait.unfreezes:
            self.net.body.requires_grad_(False)
        self.model = trait.wrap(self.net)
        trained = [parameter for parameter in self.net.parameters() if whole or parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.01)
        self.scheduler = self.ema = None
        if trait.scheduler:
            self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.7)
        if trait.ema:
            self.ema = torch.optim.swa_utils.AveragedModel(
                self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5), use_buffers=True
            )
            self.optimizer.register_step_post_hook(lambda *_: self.ema.update_parameters(self.net))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, enabled=trait.scaler)

    @property
    def restores(self) -> list[Any]:
        return [part for part in (self.scheduler, self.ema) if part is not None]

    def loss(self, x, y):
        return self.loss_of(self.model(x), y)

    def loss_of(self, logits, y):
        loss = nn.functional.cross_entropy(logits.float(), y)
        return loss + 0.01 * self.net.kept.square().mean() if hasattr(self.net, "kept") else loss

    def unfreeze(self) -> None:
        self.net.body.requires_grad_(True)
        held = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        fresh = [parameter for parameter in self.net.body.parameters() if id(parameter) not in held]
        if fresh:
            self.optimizer.add_param_group({"params": fresh, "lr": 0.001})
