import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kuber.domain.builtin_architectures import MANIFESTS, MAX_SIZE, builtin_manifest
from kuber.domain.knowledge import Architecture, TensorSpec
from kuber.errors import IncompatibleKnowledgeError
from kuber.learning.architectures import ARCHITECTURES, describe, initial_weights, make_network
from kuber.learning.weights import manifest_of

CIFAR, FASHION, DIGITS = (3, 32, 32), (1, 28, 28), (1, 8, 8)

# cnn: 9*C*32 + 9*32*64 + 9*64*128 in convolutions, 2*(32+64+128) in BatchNorm, 128*10 + 10 in the linear layer.
# lenet: 25*C*6 + 6, 25*6*16 + 16, F*120 + 120, 120*84 + 84, 84*10 + 10 with F = 16*5*5 for 32x32, 16*4*4 for 28x28.
# resnet20: 9*C*16 and 18 convolutions of 3x3, two 1x1 projections (16*32, 32*64), their BatchNorms, 64*10 + 10.
# mlp: P*256 + 256, 256*128 + 128, 128*10 + 10 with P values in a sample.
PARAMETERS = [
    ("cnn", CIFAR, 94_762),
    ("cnn", FASHION, 94_186),
    ("cnn", DIGITS, 94_186),
    ("lenet", CIFAR, 62_006),
    ("lenet", FASHION, 44_426),
    ("resnet20", CIFAR, 272_474),
    ("resnet20", FASHION, 272_186),
    ("resnet20", DIGITS, 272_186),
    ("mlp", CIFAR, 820_874),
    ("mlp", FASHION, 235_146),
    ("mlp", DIGITS, 50_826),
    ("mlp", (5,), 35_722),
]


def arguments(shape: tuple[int, ...], classes: int = 10) -> dict:
    return {"input_shape": shape, "classes": classes}


@pytest.mark.parametrize(("name", "shape", "count"), PARAMETERS)
def test_every_network_has_its_count_of_parameters_and_one_logit_for_each_class(name, shape, count):
    network = make_network(name, arguments(shape))
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert network(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(("name", "shape", "count"), PARAMETERS)
def test_the_manifest_is_that_of_the_real_weights(name, shape, count):
    architecture = describe(name, arguments(shape))
    weights = initial_weights(architecture, 0)
    assert architecture.manifest == manifest_of(weights)
    assert architecture.arguments == arguments(shape)
    assert all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in weights.values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_hub_computes_the_manifest_that_torch_makes(name):
    draw = random.Random(name)
    for _ in range(40):
        sizes = range(16, 80) if name == "lenet" else range(8, 80)
        shape = (draw.randrange(1, 9), draw.choice(sizes), draw.choice(sizes))
        if name == "mlp" and draw.random() < 0.5:
            shape = tuple(draw.randrange(1, 9) for _ in range(draw.randrange(1, 8)))
        made = describe(name, arguments(shape, draw.randrange(1, 2000)))
        known = builtin_manifest(made)
        assert known is not None
        assert dict(known) == dict(made.manifest), (name, made.arguments)


def test_the_hub_knows_every_built_in_network_and_no_other():
    assert MANIFESTS.keys() == ARCHITECTURES.keys()
    assert builtin_manifest(Architecture(name="forest", arguments=arguments(DIGITS), manifest={})) is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"input_shape": (5,)},
        {"input_shape": (0,), "classes": 2},
        {"input_shape": (5,), "classes": True},
        {"input_shape": (5,), "classes": 2.0},
        {"input_shape": (1,) * 17, "classes": 2},
    ],
)
def test_arguments_that_make_no_built_in_network_have_no_known_manifest(given):
    assert builtin_manifest(Architecture(name="mlp", arguments=given, manifest={})) is None
    with pytest.raises(IncompatibleKnowledgeError):
        make_network("mlp", given)


def test_a_manifest_has_buffers_too():
    manifest = describe("cnn", arguments(CIFAR)).manifest
    assert manifest["features.0.weight"] == TensorSpec(dtype="F32", shape=(32, 3, 3, 3))
    assert manifest["features.1.running_var"] == TensorSpec(dtype="F32", shape=(32,))
    assert manifest["features.1.num_batches_tracked"] == TensorSpec(dtype="I64", shape=())


@pytest.mark.parametrize(("name", "smallest"), [("cnn", 8), ("lenet", 16), ("resnet20", 4), ("mlp", 1)])
def test_the_smallest_image_that_a_network_accepts(name, smallest):
    network = make_network(name, arguments((1, smallest, smallest)))
    assert network(torch.zeros(4, 1, smallest, smallest)).shape == (4, 10)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet", DIGITS), ("lenet", (3, 32, 15)), ("cnn", (3, 7, 32)), ("resnet20", (1, 3, 3)), ("cnn", (64,))],
)
def test_too_small_an_image_is_refused_in_one_sentence(name, shape):
    with pytest.raises(IncompatibleKnowledgeError, match=rf"^{name} needs images of at least .*such as mlp\.$"):
        describe(name, arguments(shape))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"input_shape": CIFAR},
        {"input_shape": CIFAR, "classes": 10, "width": 3},
        {"input_shape": 3, "classes": 10},
        {"input_shape": (), "classes": 10},
        {"input_shape": CIFAR, "classes": "10"},
        {"input_shape": CIFAR, "classes": True},
        {"input_shape": CIFAR, "classes": 0},
        {"input_shape": CIFAR, "classes": -1},
        {"input_shape": CIFAR, "classes": 10**30},
        {"input_shape": (0, 32, 32), "classes": 10},
        {"input_shape": (-3, 32, 32), "classes": 10},
        {"input_shape": (3, 32.0, 32), "classes": 10},
        {"input_shape": (3, 10**12, 10**12), "classes": 10},
        {"input_shape": (1, MAX_SIZE + 1, 1), "classes": 10},
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(name, wrong):
    with pytest.raises(IncompatibleKnowledgeError):
        describe(name, wrong)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(IncompatibleKnowledgeError, match=r"'__import__'.*cnn, lenet, resnet20, mlp"):
        make_network("__import__", arguments(CIFAR))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_initial_weights_depend_on_seed_and_architecture_only(name):
    architecture = describe(name, arguments(CIFAR))
    torch.manual_seed(1)
    first = initial_weights(architecture, 7)
    torch.manual_seed(2)
    with torch.device("meta"):
        again = initial_weights(architecture, 7)
    other = initial_weights(architecture, 8)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_initial_weights_leave_the_global_randomness_unchanged():
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    initial_weights(describe("cnn", arguments(CIFAR)), 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_describing_the_largest_network_allocates_nothing():
    manifest = describe("mlp", arguments((MAX_SIZE,))).manifest  # 16 GiB, if it were allocated
    assert manifest["layers.1.weight"] == TensorSpec(dtype="F32", shape=(256, MAX_SIZE))


def test_the_cnn_equals_one_with_relu_before_pooling():
    """max(relu(a), relu(b)) == relu(max(a, b)), in values and, where they are not 0, in gradients."""
    network = make_network("cnn", arguments(DIGITS)).double()
    x = torch.randn(6, *DIGITS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6)
    F.cross_entropy(network(x), y).backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    out = x
    for convolution in (0, 4, 8):
        out = F.conv2d(out, network.features[convolution].weight, padding=1)
        norm = network.features[convolution + 1]
        out = F.batch_norm(out, None, None, norm.weight, norm.bias, training=True)
        out = F.max_pool2d(F.relu(out), 2)
    F.cross_entropy(network.classifier(out.mean((2, 3))), y).backward()
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_resnet_halves_the_image_twice_and_ends_with_64_channels():
    blocks = make_network("resnet20", arguments(CIFAR)).blocks
    assert blocks(torch.zeros(2, 16, 32, 32)).shape == (2, 64, 8, 8)
    assert len(blocks) * 2 + 2 == 20


def test_threads_that_draw_at_the_same_time_draw_the_same_weights_as_alone():
    architectures = [describe(name, {"input_shape": (3, 32, 32), "classes": 10}) for name in ("cnn", "mlp")]
    places = [(architecture, seed) for seed in range(12) for architecture in architectures]
    alone = [initial_weights(*place) for place in places]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda place: initial_weights(*place), places))
    for expected, drawn in zip(alone, together, strict=True):
        assert all(torch.equal(expected[name], drawn[name]) for name in expected)
