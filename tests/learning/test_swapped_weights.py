"""Other weights in the owner's network, by pointer."""

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm

from kuber.errors import IncompatibleKnowledgeError
from kuber.learning.evaluation import evaluation_mode
from kuber.learning.weights import swapped_weights, weights_of


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(7, 4), nn.LSTM(4, 4, batch_first=True)
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x):
        return self.head(self.norm(self.lstm(self.embed(x))[0][:, -1]))


X = torch.randint(7, (8, 5), generator=torch.Generator().manual_seed(0))


def pair():
    torch.manual_seed(0)
    network, other = Tied(), Tied()
    other.mask.logical_not_()
    other(X)  # moves its statistics
    return network, other


def test_the_network_answers_as_the_other_and_then_as_itself():
    network, other = pair()
    weights, before = weights_of(other), weights_of(network)
    copies = {name: tensor.clone() for name, tensor in weights.items()}
    pointers = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    identities = [id(parameter) for parameter in network.parameters()]
    with evaluation_mode(other):
        expected = other(X)
    with swapped_weights(network, weights), evaluation_mode(network):
        assert torch.equal(network(X), expected)
        assert network.norm.num_batches_tracked.item() == 1
        assert network.mask.tolist() == [False, True]
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == pointers
    assert [id(parameter) for parameter in network.parameters()] == identities
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(tensor, copies[name]) for name, tensor in weights.items())
    assert network.head.weight is network.embed.weight


def test_gradients_are_bit_equal_when_swapped_between_forward_and_backward():
    grads = []
    for swap in (False, True):
        network, other = pair()
        optimizer = torch.optim.Adam(network.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(X), X[:, 0])
            if swap:
                with swapped_weights(network, weights_of(other)), evaluation_mode(network):
                    network(X)
            loss.backward()
            optimizer.step()
        grads.append([*(p.grad for p in network.parameters()), *network.state_dict().values()])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


def test_own_weights_are_back_after_an_exception():
    network, other = pair()
    before = weights_of(network)
    with pytest.raises(KeyError), swapped_weights(network, weights_of(other)):
        raise KeyError
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    broken = weights_of(other) | {"head.weight": torch.zeros(3, 3)}
    with pytest.raises(IncompatibleKnowledgeError, match=r"head\.weight differs"), swapped_weights(network, broken):
        pass
    with pytest.raises(IncompatibleKnowledgeError, match="differs"), swapped_weights(network, {}):
        pass
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_old_weight_norm_is_swapped_too():
    network, other = weight_norm(nn.Linear(4, 2)), weight_norm(nn.Linear(4, 2))
    x = torch.randn(3, 4)
    loss = network(x).sum()
    with swapped_weights(network, weights_of(other)), evaluation_mode(network):
        assert torch.equal(network(x), other(x).detach())
    loss.backward()
    assert network.weight_v.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_network_is_swapped():
    network, other = torch.jit.script(nn.Linear(4, 2)), nn.Linear(4, 2)
    x, before = torch.randn(3, 4), None
    before = network(x)
    with swapped_weights(network, weights_of(other)), evaluation_mode(network):
        assert torch.equal(network(x), other(x))
    assert torch.equal(network(x), before)


def test_tensors_that_state_dict_transforms_are_loaded_and_restored():
    class Doubled(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "weight"] = destination[prefix + "weight"] * 2

        def _load_from_state_dict(self, state_dict, prefix, *rest):
            super()._load_from_state_dict(
                {**state_dict, prefix + "weight": state_dict[prefix + "weight"] / 2}, prefix, *rest
            )

    network, other, x = Doubled(4, 2), Doubled(4, 2), torch.randn(3, 4)
    before = network(x)
    with swapped_weights(network, weights_of(other)), evaluation_mode(network):
        assert torch.equal(network(x), other(x))
    assert torch.equal(network(x), before)


def test_weights_of_another_dtype_are_cast():
    network, other = nn.Linear(4, 2).bfloat16(), nn.Linear(4, 2)
    with swapped_weights(network, weights_of(other)), evaluation_mode(network):
        assert network.weight.dtype == torch.bfloat16
        assert torch.equal(network.weight, other.weight.bfloat16())
