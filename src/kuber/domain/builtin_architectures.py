"""Built-in architectures: their arguments and manifests, computed without torch.

The hub and the entities know them, so that no record decides what such a name stands for.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from types import MappingProxyType

from kuber.domain.knowledge import Architecture, Argument, Manifest, TensorSpec
from kuber.errors import IncompatibleKnowledgeError

MAX_SIZE = 1 << 24  # values of a sample, and classes
MAX_DIMENSIONS = 16  # of a sample

Tensors = dict[str, TensorSpec]


def _float(*shape: int) -> TensorSpec:
    return TensorSpec(dtype="F32", shape=shape)


def _linear(name: str, inputs: int, outputs: int) -> Tensors:
    return {f"{name}.weight": _float(outputs, inputs), f"{name}.bias": _float(outputs)}


def _convolution(name: str, inputs: int, outputs: int, size: int, *, bias: bool = False) -> Tensors:
    return {
        f"{name}.weight": _float(outputs, inputs, size, size),
        **({f"{name}.bias": _float(outputs)} if bias else {}),
    }


def _norm(name: str, width: int) -> Tensors:
    """Return the tensors of a BatchNorm."""
    vectors = {f"{name}.{tensor}": _float(width) for tensor in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": TensorSpec(dtype="I64", shape=())}


def _cnn(shape: tuple[int, ...], classes: int) -> Tensors:
    channels, *_ = image_shape(shape, smallest=8, name="cnn")
    tensors: Tensors = {}
    for block, width in enumerate((32, 64, 128)):
        tensors |= _convolution(f"features.{4 * block}", channels, width, 3)
        tensors |= _norm(f"features.{4 * block + 1}", width)
        channels = width
    return tensors | _linear("classifier", channels, classes)


def _lenet(shape: tuple[int, ...], classes: int) -> Tensors:
    channels, height, width = image_shape(shape, smallest=16, name="lenet")
    flat = 16 * after_lenet(height) * after_lenet(width)
    return (
        _convolution("conv1", channels, 6, 5, bias=True)
        | _convolution("conv2", 6, 16, 5, bias=True)
        | _linear("fc1", flat, 120)
        | _linear("fc2", 120, 84)
        | _linear("fc3", 84, classes)
    )


def _resnet20(shape: tuple[int, ...], classes: int) -> Tensors:
    channels, *_ = image_shape(shape, smallest=4, name="resnet20")
    tensors = _convolution("conv", channels, 16, 3) | _norm("norm", 16)
    channels = 16
    for place, width in enumerate((16, 16, 16, 32, 32, 32, 64, 64, 64)):
        block = f"blocks.{place}"
        tensors |= _convolution(f"{block}.conv1", channels, width, 3) | _norm(f"{block}.norm1", width)
        tensors |= _convolution(f"{block}.conv2", width, width, 3) | _norm(f"{block}.norm2", width)
        if channels != width:
            tensors |= _convolution(f"{block}.shortcut.0", channels, width, 1) | _norm(f"{block}.shortcut.1", width)
        channels = width
    return tensors | _linear("classifier", channels, classes)


def _mlp(shape: tuple[int, ...], classes: int) -> Tensors:
    return _linear("layers.1", prod(shape), 256) | _linear("layers.3", 256, 128) | _linear("layers.5", 128, classes)


MANIFESTS: Mapping[str, Callable[[tuple[int, ...], int], Tensors]] = {
    "cnn": _cnn,
    "lenet": _lenet,
    "resnet20": _resnet20,
    "mlp": _mlp,
}


def after_lenet(length: int) -> int:
    """Return what two 5x5 convolutions without padding, each with 2x2 pooling, leave of a length."""
    return ((length - 4) // 2 - 4) // 2


def image_shape(shape: tuple[int, ...], *, smallest: int, name: str) -> tuple[int, int, int]:
    """Return channels, height and width. Raises IncompatibleKnowledgeError when the samples are not such images."""
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise IncompatibleKnowledgeError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, channels first, not samples of shape "
            f"{'x'.join(map(str, shape[:8]))}; choose another architecture, such as mlp."
        )
    channels, height, width = shape
    return channels, height, width


def check_arguments(name: str, arguments: Mapping[str, Argument]) -> tuple[tuple[int, ...], int]:
    """Return input shape and classes of a built-in architecture. Raises IncompatibleKnowledgeError for others.

    Arguments come with records of other entities: no length may be zero or overflow.
    """
    if set(arguments) != {"input_shape", "classes"}:
        raise IncompatibleKnowledgeError(f"{name} takes the arguments input_shape and classes, nothing else.")
    shape, classes = arguments["input_shape"], arguments["classes"]
    if not isinstance(shape, tuple) or not shape or type(classes) is not int:
        raise IncompatibleKnowledgeError(
            f"{name} takes a list of lengths as input_shape and a whole number as classes."
        )
    if (
        any(type(length) is not int or length < 1 for length in (*shape, classes))
        or len(shape) > MAX_DIMENSIONS
        or max(prod(shape), classes) > MAX_SIZE
    ):
        raise IncompatibleKnowledgeError(
            f"{name} takes positive whole numbers in input_shape and classes, for at most {MAX_SIZE} values a sample "
            f"in {MAX_DIMENSIONS} dimensions."
        )
    return shape, classes


def builtin_manifest(architecture: Architecture) -> Manifest | None:
    """Return the manifest that a built-in architecture has for these arguments.

    None when the name is not built in, or when it does not take these arguments: then no entity makes such a network
    from them, and the name is an owner's own.
    """
    if architecture.name not in MANIFESTS:
        return None
    try:
        return _manifest(architecture.name, *check_arguments(architecture.name, architecture.arguments))
    except IncompatibleKnowledgeError:
        return None


@lru_cache(maxsize=256)
def _manifest(name: str, shape: tuple[int, ...], classes: int) -> Manifest:
    return MappingProxyType(MANIFESTS[name](shape, classes))
