"""Draws from a seed that no other thread disturbs."""

import threading

import pytest
import torch
from torch import nn

from kuber.learning import architectures
from kuber.learning.architectures import ARCHITECTURES, describe, initial_weights, make_network
from kuber.learning.random_state import SeededDraws
from kuber.learning.weights import weights_of

DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(20, 3),
    "randint": lambda: torch.randint(2, 50, (4,)),
    "randperm": lambda: torch.randperm(9),
    "rand_like": lambda: torch.rand_like(torch.ones(3)),
    "bernoulli": lambda: torch.bernoulli(torch.ones(9) / 2),
    "bernoulli_": lambda: torch.empty(9).bernoulli_(0.3),
    "normal": lambda: torch.normal(0.0, 1.0, (3,)),
    "multinomial": lambda: torch.multinomial(torch.ones(5), 2),
    "orthogonal": lambda: nn.init.orthogonal_(torch.empty(5, 5)),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(50)),
    "recurrent": lambda: nn.LSTM(3, 4).weight_hh_l0.detach(),
    "attention": lambda: nn.MultiheadAttention(8, 2).in_proj_weight.detach(),
    "dropout": lambda: nn.functional.dropout(torch.ones(10), training=True),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_are_those_after_manual_seed_and_the_global_state_stays(draw):
    before = torch.get_rng_state()
    with SeededDraws(3):
        drawn = [draw(), draw()]
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        assert all(torch.equal(one, draw()) for one in drawn)


def test_an_operation_with_a_generator_draws_from_that_one():
    with SeededDraws(3):
        drawn = torch.rand(4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_initial_weights_are_those_after_manual_seed(name):
    architecture = describe(name, {"input_shape": (3, 16, 16), "classes": 4})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = weights_of(make_network(name, architecture.arguments))
    drawn = initial_weights(architecture, 7)
    assert all(torch.equal(drawn[tensor], value) for tensor, value in expected.items())


def test_another_thread_that_seeds_in_the_middle_changes_no_initial_weight(monkeypatch):
    architecture = describe("mlp", {"input_shape": (3, 8, 8), "classes": 4})
    expected = initial_weights(architecture, 0)
    make = architectures.make_network

    def disturbed(*arguments):
        reset = nn.Linear.reset_parameters

        def reset_and_disturb(layer):
            reset(layer)
            other = threading.Thread(target=torch.manual_seed, args=(5,))
            other.start()
            other.join()

        with monkeypatch.context() as patch:
            patch.setattr(nn.Linear, "reset_parameters", reset_and_disturb)
            return make(*arguments)

    monkeypatch.setattr(architectures, "make_network", disturbed)
    drawn = initial_weights(architecture, 0)
    assert all(torch.equal(drawn[name], value) for name, value in expected.items())
