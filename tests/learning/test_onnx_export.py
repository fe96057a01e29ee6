"""Export of networks as ONNX graphs: what stands around a network in training does not matter, and comes back."""

import builtins
import functools
import warnings
from types import MethodType

import pytest
import torch
from torch import nn

from kuber.errors import KnowledgeError
from kuber.learning.onnx_export import check_equivalent, export, exportable, faithful_graph

SHAPE, CLASSES = (5, 4), 3


def samples(count=4):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


class ClassToken(nn.Module):
    """Prepends a token to as many sequences as there are samples, as vision transformers do."""

    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Parameter(torch.randn(1, 1, 4)), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(torch.cat([self.token.expand(len(x), -1, -1), x], 1).mean(1))


class Recurrent(nn.Module):
    """An LSTM whose first state is made for as many samples as there are."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x):
        state = torch.zeros(1, len(x), 8, dtype=self.head.weight.dtype)
        return self.head(self.body(x, (state, state))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean(1))


class FixedBatch(nn.Module):
    """Returns a batch of as many samples as it was traced with."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x):
        return self.head(x.reshape([len(x) + sum(0 for _ in x), 20]).reshape(int(x.shape[0]), 20))


class Selfish(Attention):
    """Overrides `train`, as owners do to freeze layers."""

    calls = 0

    def train(self, mode=True):
        type(self).calls += 1
        return super().train(mode)


@pytest.mark.process
@pytest.mark.parametrize("kind", [ClassToken, Recurrent, Attention])
def test_networks_that_need_their_batch_size_or_attention_are_exported_for_any_batch(kind):
    faithful_graph(kind(), samples(), classes=CLASSES)
    assert "len" not in kind.forward.__globals__
    assert len is builtins.len
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.process
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_exported_in_float32_and_left_as_it_is(dtype):
    network = Recurrent().to(dtype)
    network.register_buffer("tied", network.head.weight.data)
    before = {name: (tensor, tensor.clone()) for name, tensor in [*network.named_parameters()]}
    graph = faithful_graph(network, samples().to(dtype), classes=CLASSES)
    for name, parameter in network.named_parameters():
        assert parameter is before[name][0]
        assert parameter.dtype == dtype
        assert torch.equal(parameter, before[name][1])
    assert network.body._flat_weights[0] is network.body.weight_ih_l0
    check_equivalent(network.float(), graph, samples(), classes=CLASSES)


def test_autocast_is_off_and_a_wrapped_forward_is_the_original_inside_only():
    network = Attention()

    def mixed(forward):  # as accelerate and torch.amp wrap it
        @functools.wraps(forward)
        def wrapper(*args, **kwargs):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return forward(*args, **kwargs)

        return wrapper

    network._original_forward = network.forward  # accelerate keeps it there
    network.forward = MethodType(mixed(Attention.forward), network)
    network.head.forward = MethodType(mixed(nn.Linear.forward), network.head)
    network.body.forward = torch.autocast("cpu", dtype=torch.bfloat16)(network.body.forward)  # of a bound method
    outer, inner = network.forward, network.head.forward
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(samples()).dtype == torch.bfloat16
        with exportable(network):
            assert network(samples()).dtype == torch.float32
            assert not network.training
            assert not network.head.training
        export(network, input_shape=SHAPE)
        assert torch.is_autocast_enabled("cpu")
    assert network.forward is outer
    assert network.head.forward is inner
    assert all(module.training for module in network.modules())


def test_a_forward_of_the_owners_own_making_is_exported_as_it_is():
    network = nn.Linear(4, CLASSES)
    network.forward = lambda x: x[:, :3] * 0
    with exportable(network):
        assert network(torch.ones(2, 4)).abs().sum() == 0


def test_the_exporter_does_not_call_train_of_the_owners_modules():
    network = Selfish()
    network.body.layers[0].eval()
    network.requires_grad_(False)
    Selfish.calls = 0
    state = torch.get_rng_state()
    export(network, input_shape=SHAPE)
    assert Selfish.calls == 0
    assert network.training
    assert not network.body.layers[0].training
    assert torch.equal(torch.get_rng_state(), state)


class Unknown(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1][:, :3]


def test_a_failed_export_prints_nothing(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KnowledgeError, match="cannot be exported"):
            export(Unknown(), input_shape=SHAPE)
    assert capfd.readouterr() == ("", "")
    assert not torch._C._jit_is_onnx_log_enabled()


@pytest.mark.process
def test_a_graph_for_one_batch_size_is_found():
    with pytest.raises(KnowledgeError, match=r"refused|different logits|cannot be"):
        faithful_graph(FixedBatch(), samples(), classes=CLASSES)


@pytest.mark.process
def test_small_logits_are_compared_on_their_own_scale():
    class Small(nn.Module):
        def forward(self, x):
            scale = 1e-4 if float(x.abs().sum()) > 0 else 2e-4
            return x[:, 0, :3] * scale

    with pytest.raises(KnowledgeError, match="different logits"):
        faithful_graph(Small(), samples(), classes=CLASSES)


@pytest.mark.process
def test_a_branch_that_one_later_sample_alone_takes_is_found():
    class Branching(nn.Module):
        def forward(self, x):
            return x[:, 0, :3] * (2.0 if bool(x.mean() > 0) else 1.0)

    x = -torch.rand(4, *SHAPE)
    x[2] = 0.01
    with pytest.raises(KnowledgeError, match="different logits"):
        faithful_graph(Branching(), x, classes=CLASSES)


@pytest.mark.process
def test_a_network_that_squeezes_a_batch_of_one_is_exported():
    class Squeezing(nn.Module):
        def forward(self, x):
            return x[:, :1, :3].squeeze()

    faithful_graph(Squeezing(), samples(), classes=CLASSES)


def test_a_network_too_large_for_a_graph_is_not_exported():
    with pytest.raises(KnowledgeError, match="more than the limit"):
        faithful_graph(nn.Linear(1 << 20, 1 << 10, device="meta"), samples(), classes=CLASSES)


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda network: torch.jit.trace(network, samples())])
def test_a_scripted_network_is_exported_whole_or_in_part(compiled):
    network = nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    for model in (compiled(network), nn.Sequential(compiled(network))):
        assert export(model, input_shape=SHAPE)
