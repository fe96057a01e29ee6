"""Neural networks by name: the built-in ones and those of plugins."""

from collections.abc import Callable, Mapping
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber import plugins
from kuber.domain.builtin_architectures import after_lenet, check_arguments, image_shape
from kuber.domain.knowledge import Architecture, Argument
from kuber.errors import IncompatibleKnowledgeError, SettingsError
from kuber.learning.random_state import SeededDraws
from kuber.learning.weights import Weights, manifest_of, weights_of

Factory = Callable[..., nn.Module]


class Cnn(nn.Module):
    """Three blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max pooling; global average pooling; linear."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, *_ = image_shape(input_shape, smallest=8, name="cnn")
        blocks: list[nn.Module] = []
        for width in (32, 64, 128):
            blocks += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                # Maximum and ReLU commute: pooled first, ReLU has a quarter of the values (measured: 4 % faster).
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


class LeNet(nn.Module):
    """NIID-Bench's simple-cnn (arXiv 2102.02079): 5x5 convolutions with 6 and 16 channels, then 120, 84, classes."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape(input_shape, smallest=16, name="lenet")
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        flat = 16 * after_lenet(height) * after_lenet(width)
        self.fc1 = nn.Linear(flat, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        out: Tensor = self.fc3(F.relu(self.fc2(x)))
        return out


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; where the shape changes, the shortcut is a 1x1 convolution."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20 for small images (He et al., arXiv 1512.03385, section 4.2), with projection shortcuts (option B)."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, *_ = image_shape(input_shape, smallest=4, name="resnet20")
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        channels = 16
        for width in (16, 32, 64):
            for position in range(3):
                stride = 2 if position == 0 and width != 16 else 1
                blocks.append(ResidualBlock(channels, width, stride))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(F.relu(self.norm(self.conv(x))))
        logits: Tensor = self.classifier(out.mean((2, 3)))
        return logits


class Mlp(nn.Module):
    """Two hidden layers of 256 and 128 units, for samples of any shape."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(input_shape), 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


ARCHITECTURES: dict[str, Factory] = {"cnn": Cnn, "lenet": LeNet, "resnet20": ResNet20, "mlp": Mlp}


def make_network(name: str, arguments: Mapping[str, Argument]) -> nn.Module:
    """Return a new network on torch's current default device, with torch's own initialisation.

    `name` is a built-in one or an entry point of the group `kuber.architectures`, a function that returns an
    nn.Module for the arguments. Raises IncompatibleKnowledgeError when the name is unknown or the arguments do not
    fit.
    """
    if name not in ARCHITECTURES:
        return _make_from_plugin(name, arguments)
    shape, classes = check_arguments(name, arguments)
    return ARCHITECTURES[name](input_shape=shape, classes=classes)


def check_architecture(name: str) -> None:
    """Raise SettingsError unless there is a built-in architecture or a plugin of this name."""
    if name not in ARCHITECTURES and plugins.find(plugins.ARCHITECTURES, name) is None:
        raise SettingsError(_unknown(name))


def _make_from_plugin(name: str, arguments: Mapping[str, Argument]) -> nn.Module:
    factory = plugins.find(plugins.ARCHITECTURES, name)
    if factory is None:
        raise IncompatibleKnowledgeError(_unknown(name))
    try:
        network = factory(**arguments)
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything
        raise IncompatibleKnowledgeError(
            f"The architecture {name!r} does not take these arguments: {type(error).__name__}: {error}."
        ) from None
    if not isinstance(network, nn.Module):
        raise IncompatibleKnowledgeError(f"The architecture {name!r} does not return a torch.nn.Module.")
    return network


def _unknown(name: str) -> str:
    known = ", ".join(dict.fromkeys([*ARCHITECTURES, *plugins.names(plugins.ARCHITECTURES)]))
    return f"There is no architecture {name!r} here; known: {known}."


def describe(name: str, arguments: Mapping[str, Argument]) -> Architecture:
    """Return the architecture with its manifest: the dtype and shape of each tensor. Allocates no tensor."""
    with torch.device("meta"):
        network = make_network(name, arguments)
    return Architecture(name=name, arguments=dict(arguments), manifest=manifest_of(network.state_dict()))


def initial_weights(architecture: Architecture, seed: int) -> Weights:
    """Return initial weights, which depend on seed and architecture only.

    They are drawn on the CPU, whatever torch's default device. torch's global random state is neither read nor
    changed, so other threads may draw from it or seed it meanwhile.
    """
    with SeededDraws(seed), torch.device("cpu"):
        return weights_of(make_network(architecture.name, architecture.arguments))


def is_reproducible(architecture: Architecture) -> bool:
    """Return whether initial weights depend on the seed only: a plugin may draw its own random numbers."""
    if architecture.name in ARCHITECTURES:
        return True
    first, second = initial_weights(architecture, 0), initial_weights(architecture, 0)
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())
