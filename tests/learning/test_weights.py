import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors

from kuber.domain.knowledge import TensorSpec
from kuber.errors import CorruptKnowledgeError, IncompatibleKnowledgeError, KnowledgeError
from kuber.learning import weights as module
from kuber.learning.architectures import describe, initial_weights
from kuber.learning.weights import dump, load, load_weights, manifest_of, swapped_weights, to_bfloat16, weights_of

DIGITS = describe("cnn", {"input_shape": (1, 8, 8), "classes": 10})
WEIGHTS = initial_weights(DIGITS, 0)
SMALL = describe("mlp", {"input_shape": (1,), "classes": 2})
FILE = dump(initial_weights(SMALL, 0))


def file(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def tensor(begin: int = 0, end: int = 4, shape: object = (1,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def nothing_is_allocated(monkeypatch):
    """Fail when tensors are made from the bytes."""

    def load_anyway(data: bytes) -> None:
        pytest.fail("tensors were made before the header was checked")

    monkeypatch.setattr(module.safetensors, "load", load_anyway)


def test_dumped_weights_are_loaded_unchanged():
    loaded = load(dump(WEIGHTS), DIGITS)
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)
    assert loaded["features.1.num_batches_tracked"].dtype == torch.int64


def test_bfloat16_weights_have_half_the_bytes_and_load_as_float32():
    data = dump(to_bfloat16(WEIGHTS))
    assert len(data) < 0.52 * len(dump(WEIGHTS))
    loaded = load(data, DIGITS)
    assert manifest_of(loaded) == manifest_of(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=2**-8, atol=0)


def test_the_same_weights_give_the_same_bytes_in_any_order_and_layout():
    permuted = {name: WEIGHTS[name].clone() for name in reversed(WEIGHTS)}
    permuted["features.0.weight"] = permuted["features.0.weight"].to(memory_format=torch.channels_last)
    permuted["classifier.weight"] = permuted["classifier.weight"].t().contiguous().t()
    assert dump(permuted) == dump(WEIGHTS)
    assert dump(load(dump(WEIGHTS), DIGITS)) == dump(WEIGHTS)
    assert b"__metadata__" not in dump(WEIGHTS)


def test_other_weights_give_other_bytes():
    assert dump(initial_weights(DIGITS, 1)) != dump(WEIGHTS)


def test_loading_needs_no_global_state_and_shares_no_memory():
    data = bytearray(dump(WEIGHTS))
    loaded = load(bytes(data), DIGITS)
    data[-4:] = b"\xff\xff\xff\xff"
    assert all(torch.isfinite(values).all() for values in loaded.values())


def test_weights_of_a_network_are_a_contiguous_copy():
    network = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    weights = weights_of(network)
    kept = weights["weight"].clone()
    with torch.no_grad():
        network.weight.zero_()
    assert torch.equal(weights["weight"], kept)
    assert weights["weight"].is_contiguous()
    assert not weights["weight"].requires_grad


def test_a_manifest_has_dtype_and_shape():
    weights = {"a": torch.zeros(2, 3), "b": torch.tensor(1), "c": torch.zeros(0, dtype=torch.bfloat16)}
    assert manifest_of(weights) == {
        "a": TensorSpec(dtype="F32", shape=(2, 3)),
        "b": TensorSpec(dtype="I64", shape=()),
        "c": TensorSpec(dtype="BF16", shape=(0,)),
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\x00" * 8,
        b"\x80\x02}q\x00.not weights",  # a pickle
        (2**63).to_bytes(8, "little") + b"{}",
        (10**9).to_bytes(8, "little") + b"{}",
        file(b"not json"),
        file(b"\xff\xfe{}"),
        file(b"[" * 100_000),
        file(b'{"a":' + b"9" * 5000 + b"}"),
        file([]),
        file({"a": 1}),
        file({"a": tensor() | {"data_offsets": [0]}}, bytes(4)),
        file({"a": tensor(dtype="F99")}, bytes(4)),
        file({"a": tensor(dtype=["F32"])}, bytes(4)),
        file({"a": tensor(shape=[-1])}, bytes(4)),
        file({"a": tensor(shape=[True])}, bytes(4)),
        file({"a": tensor(shape="1")}, bytes(4)),
        file({"a": tensor(shape=[2**60], end=2**62)}, bytes(4)),
        file({"a": tensor(shape=[2**62, 4])}, bytes(4)),  # its size overflows to 0 in 64 bits
        file({"a": tensor(), "b": tensor()}, bytes(4)),
        file({"a": tensor(), "b": tensor(8, 12)}, bytes(12)),
        FILE[:-1],
        FILE[: len(FILE) // 2],
        FILE[:20],
        FILE + b"\x00",
    ],
    ids=lambda data: repr(data[:24]),
)
@pytest.mark.usefixtures("nothing_is_allocated")
def test_an_invalid_file_is_refused_before_anything_is_allocated(data):
    with pytest.raises(CorruptKnowledgeError, match=r"^The weights are not a valid safetensors file: .*\.$"):
        load(data, SMALL)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w | {"classifier.weight": torch.zeros(5, 128)},
        lambda w: w | {"classifier.weight": torch.zeros(128, 10)},
        lambda w: w | {"classifier.bias": w["classifier.bias"].double()},
        lambda w: w | {"features.1.num_batches_tracked": torch.tensor(0, dtype=torch.int32)},
        lambda w: w | {"more": torch.zeros(1)},
        lambda w: {name: values for name, values in w.items() if name != "classifier.bias"},
        lambda w: initial_weights(SMALL, 0),
        lambda w: {},
    ],
    ids=["classes", "transposed", "double", "int32", "one more", "one less", "other architecture", "none"],
)
@pytest.mark.usefixtures("nothing_is_allocated")
def test_valid_weights_of_another_architecture_are_refused_before_anything_is_allocated(change):
    with pytest.raises(IncompatibleKnowledgeError, match="not those of cnn"):
        load(dump(change(dict(WEIGHTS))), DIGITS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["classifier.bias", "features.1.running_var"])
def test_a_value_that_is_not_finite_is_refused(name, value):
    values = WEIGHTS[name].clone()
    values[-1] = value
    with pytest.raises(CorruptKnowledgeError, match=rf"not finite, in {name}"):
        load(dump(WEIGHTS | {name: values}), DIGITS)


def test_a_header_that_two_parsers_read_differently_is_refused(monkeypatch):
    other = safetensors.save({"a": torch.zeros(1)})
    monkeypatch.setattr(module.safetensors, "load", lambda data, real=safetensors.load: real(other))
    with pytest.raises(CorruptKnowledgeError, match="header of the weights is ambiguous"):
        load(FILE, SMALL)


@settings(max_examples=150)
@given(position=st.integers(0, len(FILE) - 1), value=st.integers(0, 255))
def test_a_changed_byte_never_gives_invalid_weights(position, value):
    data = bytearray(FILE)
    data[position] = value
    try:
        loaded = load(bytes(data), SMALL)
    except KnowledgeError:
        return
    assert manifest_of(loaded) == SMALL.manifest
    assert all(torch.isfinite(values).all() for values in loaded.values())


class Recorder(torch.nn.Linear):
    """A layer with an extra state."""

    def __init__(self, extra):
        super().__init__(2, 2)
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def compiled_inside(compiled=True):
    inner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    return torch.nn.Sequential(torch.compile(inner, backend="eager") if compiled else inner, torch.nn.Linear(2, 2))


def test_a_compiled_module_inside_a_network_does_not_change_names():
    compiled, plain = compiled_inside(), compiled_inside(compiled=False)
    weights = weights_of(plain)
    assert weights_of(compiled).keys() == weights.keys() == plain.state_dict().keys()
    x = torch.randn(3, 2)
    before = {name: tensor.clone() for name, tensor in compiled.state_dict().items()}
    with swapped_weights(compiled, weights):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in weights_of(compiled).items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in compiled.state_dict().items())
    load_weights(compiled, weights)
    assert torch.equal(compiled.eval()(x), plain.eval()(x))


def test_an_extra_state_that_is_no_tensor_stays():
    ours, theirs = Recorder({"steps": 1}), Recorder({"steps": 2})
    with swapped_weights(ours, weights_of(theirs)):
        assert torch.equal(ours.weight, theirs.weight)
    load_weights(ours, weights_of(theirs))
    assert ours.extra == {"steps": 1}
    assert torch.equal(ours.weight, theirs.weight)


def test_an_extra_state_that_is_a_tensor_is_part_of_the_weights():
    ours, theirs = Recorder(torch.tensor(1.0)), Recorder(torch.tensor(2.0))
    with swapped_weights(ours, weights_of(theirs)):
        assert ours.extra.item() == 2.0
    assert ours.extra.item() == 1.0
    load_weights(ours, weights_of(theirs))
    assert ours.extra.item() == 2.0


@pytest.mark.parametrize(
    "weights", [{}, {"weight": torch.zeros(2, 2)}, {"weight": torch.zeros(3), "bias": torch.zeros(2)}]
)
def test_weights_of_another_network_are_not_loaded(weights):
    with pytest.raises(IncompatibleKnowledgeError, match="not those of this network"):
        load_weights(torch.nn.Linear(2, 2), weights)
