"""Probe of a network: its answers do not depend on what it learned, and it leaves no trace."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from kuber.learning.probe import _replacement, probe


class Net(nn.Module):
    def __init__(self, act=torch.relu):
        super().__init__()
        self.a, self.act, self.b = nn.Linear(4, 16), act, nn.Linear(16, 3)

    def forward(self, x):
        return self.b(self.act(self.a(x)))


class Tokens(nn.Module):
    def __init__(self, rows=50):
        super().__init__()
        self.table, self.rnn, self.head = nn.Embedding(rows, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        first = torch.zeros(1, len(x), 8)  # float32, whatever the weights are
        return self.head(self.rnn(self.table(x), (first, first))[0][:, -1])


def small(network):
    return probe(network, input_shape=(4,))


def test_networks_that_learned_differently_answer_the_same():
    torch.manual_seed(0)
    first = small(Net())
    assert first is not None
    assert first == small(Net())
    assert first.startswith("6 3 ")  # float64


def test_answers_do_not_depend_on_the_number_of_threads():
    network = nn.Sequential(nn.Linear(600, 300), nn.Tanh(), nn.LayerNorm(300), nn.Linear(300, 1000))
    threads, answers = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            answers.append(probe(network, input_shape=(600,)))
    finally:
        torch.set_num_threads(threads)
    assert answers[0] == answers[1]


def test_answers_do_not_depend_on_the_dtype_of_the_weights():
    assert small(Net()) == small(Net().double()) == small(Net().bfloat16())


@pytest.mark.parametrize("act", [torch.tanh, nn.functional.silu, torch.sigmoid, lambda x: nn.functional.gelu(x), abs])
def test_another_activation_answers_otherwise(act):
    assert small(Net(act)) not in (None, small(Net()))


def test_the_two_forms_of_gelu_answer_otherwise():
    assert small(Net(nn.GELU())) != small(Net(nn.GELU("tanh")))


def test_whole_numbers_are_tried_where_floats_fail():
    assert probe(Tokens(), input_shape=(7,)).startswith("2 3 ")  # float32, since the first state is float32
    assert probe(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)), input_shape=(3,)) is not None


def test_several_inputs_are_made_like_the_samples():
    class Two(Net):
        def forward(self, tokens, mask, x):
            return super().forward(x + tokens + mask)

    samples = {"tokens": torch.zeros(5, 4).long(), "mask": torch.ones(5, 4).bool(), "x": torch.zeros(5, 4)}
    by_name = probe(Two(), input_shape=(4,), samples=samples)
    assert by_name == probe(Two(), input_shape=(4,), samples=tuple(samples.values()))
    assert by_name is not None


@pytest.mark.parametrize(
    "output",
    [lambda y: (y, None), lambda y: {"logits": y, "loss": y.mean()}, lambda y: [y], lambda y: {"a": y}],
    ids=["tuple", "logits", "list", "dict"],
)
def test_every_form_of_output_is_read(output):
    class Wrapped(Net):
        def forward(self, x):
            return output(super().forward(x))

    assert small(Wrapped()) == small(Net())


def test_a_network_that_cannot_be_run_has_no_answers():
    class Failing(Net):
        def forward(self, x):
            raise OSError("no disk")

    assert small(Failing()) is None
    assert small(torch.jit.script(nn.Linear(4, 3))) is None


def test_masks_and_tables_do_not_depend_on_their_values():
    class Masked(Net):
        def __init__(self, mask, order):
            super().__init__()
            self.register_buffer("mask", mask)
            self.register_buffer("order", order)

        def forward(self, x):
            return super().forward(x[:, self.order] * self.mask)

    torch.manual_seed(0)
    first, second = (Masked(torch.rand(4) < 0.5, torch.randperm(4)) for _ in range(2))
    assert small(first) == small(second) != small(Net())


def test_what_does_not_travel_is_part_of_the_network():
    class Scaled(Net):
        def __init__(self, scale):
            super().__init__()
            self.register_buffer("scale", torch.tensor(scale), persistent=False)

        def forward(self, x):
            return super().forward(x) * self.scale

    assert small(Scaled(1.0)) == small(Scaled(1.0)) != small(Scaled(2.0))


def test_dropout_and_batch_statistics_are_off():
    def made(rate):
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(rate), nn.Linear(8, 3)).train()

    assert small(made(0.1)) == small(made(0.9))


def test_the_network_and_the_random_states_are_left_as_they_were():
    class Busy(Net):
        def __init__(self):
            super().__init__()
            self.norm, self.calls, self.kept = nn.BatchNorm1d(4), 0, None
            self.lock = threading.Lock()
            self.register_buffer("seen", torch.zeros(()))
            self.c = nn.Linear(16, 16)
            self.c.weight = nn.Parameter(torch.rand(16, 16))
            self.d = nn.Linear(16, 16)
            self.d.weight = self.c.weight

        def forward(self, x):
            self.calls += 1
            self.seen += 1
            self.kept = x
            random.random(), np.random.rand(), torch.rand(1)
            return super().forward(self.norm(x))

    network = Busy().train()
    network.norm.eval()
    parameters = dict(network.named_parameters(remove_duplicate=False))
    buffers = dict(network.named_buffers())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    versions = {name: tensor._version for name, tensor in parameters.items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    assert small(network) is not None
    assert dict(network.named_parameters(remove_duplicate=False)) == parameters  # the very same tensors
    assert all(tensor is buffers[name] for name, tensor in network.named_buffers())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert {name: tensor._version for name, tensor in parameters.items()} == versions
    assert all(parameter.grad is not None and parameter.requires_grad for parameter in parameters.values())
    assert (network.calls, network.kept) == (0, None)
    assert network.training
    assert not network.norm.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()


def test_large_tensors_take_no_second_copy():
    """A row of the replacement and a little: the numbers overlap."""
    weight = _replacement("w", nn.Parameter(torch.empty(1000, 1000)))
    assert weight.untyped_storage().nbytes() < 5000 * 8
    assert 0.9 < float(weight.std()) * 1000**0.5 < 1.1
    assert len(weight[0].unique()) == 1000
