"""The owner's network inside and after `evaluation_mode`."""

import random
import threading
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, weight_norm

from kuber.learning.evaluation import evaluation_mode, training_mode

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


class Frozen(nn.Sequential):
    """Its train() holds BatchNorm in evaluation mode, takes no argument and returns nothing, as owners write it."""

    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.calls = []

    def train(self):
        self.calls.append("train")
        for module in self:
            module.training = not isinstance(module, nn.BatchNorm1d)

    def eval(self):
        raise AssertionError("the owner's eval is not called")


def modes(network):
    return [module.training for module in network.modules()]


def test_each_module_gets_its_own_mode_back():
    network = Frozen()
    network.train()
    network.calls.clear()
    before = modes(network)
    assert len(set(before)) == 2
    with evaluation_mode(network):
        assert not any(modes(network))
    assert modes(network) == before
    with pytest.raises(KeyError), evaluation_mode(network):
        raise KeyError
    assert modes(network) == before
    assert network.calls == []


def test_frozen_modules_stay_frozen_while_training():
    network = Frozen()
    network.train()
    network.calls.clear()
    before = modes(network)
    with training_mode(network):
        assert modes(network) == before
    assert network.calls == []
    for module in network.modules():
        module.training = False
    with training_mode(network):
        assert network[0].training
        assert not network[1].training
    assert not any(modes(network))
    plain = nn.Sequential(nn.Linear(4, 2), nn.Dropout()).eval()
    with training_mode(plain):
        assert all(modes(plain))
    assert not any(modes(plain))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_are_evaluated():
    network = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).train())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with evaluation_mode(network):
        assert torch.equal(network(X), network(X))
    assert modes(network) == [True] * len(modes(network))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_frozen_scripted_module_has_no_mode():
    network = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 2)).eval()))
    with evaluation_mode(network):
        network(X)


def test_a_kept_activation_is_the_owners_again():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.count = nn.Linear(4, 2), 0

        def forward(self, x):
            self.features, self.last, self.count = self.body(x), x, self.count + 1
            return self.features

    network = Keeps()
    with evaluation_mode(network):
        network(X)
    assert not hasattr(network, "features")
    network(X)
    kept = network.features
    with evaluation_mode(network):
        network(X[:3])
    assert network.features is kept
    assert network.count == 1
    kept.sum().backward()
    assert network.body.weight.grad is not None


@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_reparametrised_weights_keep_their_graph(norm):
    network = norm(nn.Linear(4, 2))
    loss = network(X).square().sum()
    with evaluation_mode(network):
        network(X)
    loss.backward()
    network.zero_grad()
    network(X).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert parametrize.is_parametrized(network) or norm is weight_norm


class Counts(nn.Module):
    """A module that changes its buffers, and draws, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4), persistent=False)
        self.draws, self.numbers = torch.Generator().manual_seed(3), np.random.default_rng(3)
        self.lock, self.file = threading.Lock(), open(__file__)  # noqa: SIM115
        self.python = random.Random(3)

    def forward(self, x):
        self.seen += len(x)
        self.mean = x.mean(0)
        torch.rand(1), np.random.rand(), random.random()
        self.python.random()
        return x + torch.rand(1, generator=self.draws) + self.numbers.random()


def test_buffers_and_random_states_are_as_before():
    network = Counts()
    network(X)
    mean, seen = network.mean, network.seen
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    own = network.draws.get_state(), network.numbers.bit_generator.state, network.python.getstate()
    with evaluation_mode(network):
        network(X[:5])
    assert network.mean is mean
    assert network.seen is seen
    assert seen.item() == 16
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert torch.equal(network.draws.get_state(), own[0])
    assert network.numbers.bit_generator.state == own[1]
    assert network.python.getstate() == own[2]
    network.file.close()


class Dtype(nn.Linear):
    def forward(self, x):
        self.seen.append(super().forward(x).dtype)
        return super().forward(x)


def test_the_owners_autocast_is_left_out_and_its_cache_is_not_poisoned():
    network = Dtype(4, 2)
    network.seen = []
    with torch.autocast("cpu", torch.bfloat16):
        with evaluation_mode(network):
            network(X)
        with evaluation_mode(network, autocast=True):
            network(X)
        network(X).sum().backward()  # a cast cached without gradient would leave none
    assert network.seen == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert network.weight.grad is not None


def test_results_can_be_used_in_a_graph_even_inside_inference_mode():
    network = nn.Linear(4, 2)
    with torch.inference_mode(), evaluation_mode(network):
        out = network(torch.ones(3, 4))
    assert not out.is_inference()
    assert not out.requires_grad


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_forwards_are_not_compiled_anew(whole):
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(self.body(x))

    torch._dynamo.reset()  # else a graph of the other case serves this one
    inner = Drops()
    if whole:
        inner.compile(backend=backend)
        network = inner
    else:
        network = nn.Sequential(torch.compile(inner, backend=backend))
    with evaluation_mode(network):
        assert torch.equal(network(X), network(X))
    assert compiled == []
    network(X)
    assert len(compiled) == 1
    with evaluation_mode(network):
        network(X)
    network(X)
    assert len(compiled) == 1


def test_lists_and_dicts_of_activations_are_as_before():
    class Keeping(nn.Linear):
        def forward(self, x):
            self.kept.append(super().forward(x))
            self.by_name["last"] = self.kept[-1]
            self.sizes.append(len(x))
            return self.kept[-1]

    network = Keeping(4, 2)
    network.kept, network.by_name, network.sizes = deque(maxlen=2), {}, []
    logits = network(X)
    with evaluation_mode(network):
        for count in (1, 2, 3):
            network(X[:count])
    assert [kept is logits for kept in network.kept] == [True]
    assert network.by_name["last"] is logits
    assert network.sizes == [16, 1, 2, 3]  # these are notes
