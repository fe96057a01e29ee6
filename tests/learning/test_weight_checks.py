"""Check of a network's tensors: what travels, and what the constructor says about the rest."""

import re

import pytest
import torch
from torch import nn

from kuber.domain.safetensors_header import HEADER_LIMIT, header_length
from kuber.errors import SettingsError
from kuber.learning.weight_checks import check_initialised, obstacle
from kuber.learning.weights import dump, weights_of


class Net(nn.Module):
    def __init__(self, buffer=None, *, name="more", **more):
        super().__init__()
        self.head = nn.Linear(2, 2)
        if buffer is not None:
            self.register_buffer(name, buffer, **more)


class ExtraState(nn.Linear):
    def __init__(self, state):
        super().__init__(2, 2)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


@pytest.mark.parametrize(
    "buffer",
    [
        torch.ones(3, 3).tril().bool(),
        torch.arange(4),
        torch.zeros(0),
        torch.tensor(1.5),
        torch.ones(2, 3).t(),
        torch.ones(1).expand(5),
        torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=lambda buffer: f"{buffer.dtype}, {tuple(buffer.shape)}",
)
def test_buffers_that_travel(buffer):
    assert obstacle(Net(buffer)) is None


@pytest.mark.parametrize(
    ("buffer", "reason"),
    [
        (torch.ones(2, dtype=torch.complex64), "the tensor more is complex64, which does not travel"),
        (torch.ones(2).to(torch.float8_e4m3fn), "the tensor more is float8_e4m3fn, which does not travel"),
        (torch.eye(2).to_sparse(), "the tensor more is sparse, nested, quantised"),
        (torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), "the tensor more is sparse, nested, quant"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "the tensor more is sparse, nested, quantised"),
        (torch.tensor([0.0, -torch.inf]), r"more holds numbers that are not finite.*persistent=False"),
        (torch.tensor([torch.nan]), "more holds numbers that are not finite"),
        (torch.zeros([1] * 17), "the tensor more has 17 dimensions, and hubs take at most 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_buffers_that_do_not_travel_are_named(buffer, reason):
    assert re.search(reason, obstacle(Net(buffer)))
    assert obstacle(Net(buffer, persistent=False)) is None


@pytest.mark.parametrize("name", ["a b", "größe", "with\nnewline", "n" * 1000, '"quoted"', "emoji \U0001f600"])
def test_any_usual_name_travels(name):
    assert obstacle(Net(torch.ones(1), name=name)) is None


@pytest.mark.parametrize("name", ["n" * 1001, "__metadata__", "\ud800"])
def test_names_that_no_record_holds(name):
    assert "its name" in obstacle(Net(torch.ones(1), name=name))


def test_extra_state_travels_if_it_is_a_tensor():
    assert obstacle(ExtraState(torch.ones(2))) is None
    assert obstacle(ExtraState({"scale": 1})) == "the extra state _extra_state is no tensor"


def test_more_tensors_than_a_hub_takes():
    many = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in range(20_001)])
    assert "has 20001 tensors, and hubs take at most 20000" in obstacle(many)


def test_a_longer_header_than_a_hub_takes():
    long = nn.ModuleDict({f"{n:04}{'n' * 600}": nn.Linear(1, 1) for n in range(1000)})
    assert "the names and shapes of its 2000 tensors exceed" in obstacle(long)


def test_the_longest_header_that_is_taken_is_short_enough():
    """The names leave so much room that the estimate is just below the limit."""
    network = nn.ModuleDict({f"{n:04}{'n' * 395}": nn.Linear(1, 1) for n in range(1030)})
    assert obstacle(network) is None
    assert HEADER_LIMIT * 0.95 < header_length(dump(weights_of(network))) <= HEADER_LIMIT


def test_parameters_without_numbers_are_refused():
    with pytest.raises(SettingsError, match=r"parameter weight of the model has no shape yet; run one batch"):
        check_initialised(nn.LazyLinear(3))
    with pytest.raises(SettingsError, match=r"tensor weight of the model is on the meta device"):
        check_initialised(nn.Linear(2, 2, device="meta"))
    with pytest.raises(SettingsError, match=r"tensor more of the model is on the meta device"):
        check_initialised(Net(torch.ones(1, device="meta")))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_parameters_that_are_not_finite_are_refused(value):
    network = Net()
    network.head.bias.data[1] = value
    with pytest.raises(SettingsError, match=r"parameter head\.bias of the model holds a number that is not finite"):
        check_initialised(network)
