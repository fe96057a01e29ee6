"""Copies of optimizers: their state goes back by parameter, and groups and rates stay the owner's."""

import pytest
import torch
from torch import nn

from kuber.entity.state.optimizer_copy import OptimizerCopy, optimizers_in
from kuber.errors import SettingsError


def work(model, *optimizers, steps=3):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(steps))
    for _ in range(steps):

        def loss():
            for one in optimizers:
                one.zero_grad()
            total = model(x).square().sum()
            total.backward()
            return total

        loss()
        for one in optimizers:
            one.step(loss) if isinstance(one, torch.optim.LBFGS) else one.step()


def flat(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: flat(inner) for key, inner in value.items()}
    return [flat(inner) for inner in value] if isinstance(value, list) else value


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.01, max_iter=2),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_goes_back_and_rates_stay(kind):
    network = model()
    optimizer = OPTIMIZERS[kind](list(network.parameters()))
    work(network, optimizer)
    copy = OptimizerCopy()
    copy.take([optimizer])
    before = flat(optimizer.state_dict()["state"])
    work(network, optimizer, steps=2)
    optimizer.param_groups[0]["lr"] = 0.5
    assert not same(before, optimizer.state_dict()["state"])
    copy.restore([optimizer])
    assert same(before, optimizer.state_dict()["state"])
    assert optimizer.param_groups[0]["lr"] == 0.5
    work(network, optimizer, steps=1)
    copy.restore([optimizer])
    assert same(before, optimizer.state_dict()["state"])  # the copy itself was not trained


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_without_a_copy_it_begins_as_a_new_one(kind):
    network = model()
    optimizer = OPTIMIZERS[kind](list(network.parameters()))
    fresh = flat(optimizer.state_dict()["state"])
    work(network, optimizer)
    OptimizerCopy().restore([optimizer])
    assert same(fresh, optimizer.state_dict()["state"])
    work(network, optimizer, steps=1)


def test_a_group_that_was_added_begins_without_state():
    network = model()
    optimizer = torch.optim.SGD(network[1].parameters(), 0.1, momentum=0.9)
    work(network, optimizer)
    copy = OptimizerCopy()
    copy.take([optimizer])
    before = flat(optimizer.state_dict()["state"])
    optimizer.add_param_group({"params": network[0].parameters(), "lr": 0.01})
    work(network, optimizer)
    copy.restore([optimizer])
    assert same(before, optimizer.state_dict()["state"])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    work(network, optimizer)


def test_a_group_that_was_removed_stays_away():
    network = model()
    optimizer = torch.optim.Adam([{"params": part.parameters()} for part in network], 0.1)
    work(network, optimizer)
    copy = OptimizerCopy()
    copy.take([optimizer])
    first = flat(optimizer.state[network[0].weight])
    for parameter in optimizer.param_groups.pop(1)["params"]:
        del optimizer.state[parameter]
    work(network, optimizer)
    copy.restore([optimizer])
    assert set(optimizer.state) == set(network[0].parameters())
    assert same(first, optimizer.state[network[0].weight])


def test_an_optimizer_of_another_class_is_reset():
    network = model()
    adam, sgd = torch.optim.Adam(network.parameters()), torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    work(network, adam)
    copy = OptimizerCopy()
    copy.take([adam])
    work(network, sgd)
    copy.restore([sgd])
    assert not sgd.state
    work(network, sgd)


def test_tensors_of_the_state_are_used_again():
    network = model()
    optimizer = torch.optim.Adam(network.parameters())
    work(network, optimizer)
    copy = OptimizerCopy()
    copy.take([optimizer])
    kept = copy._states[id(optimizer)][network[0].weight]["exp_avg"].data_ptr()
    live = optimizer.state[network[0].weight]["exp_avg"]
    work(network, optimizer)
    copy.take([optimizer])
    assert copy._states[id(optimizer)][network[0].weight]["exp_avg"].data_ptr() == kept
    copy.restore([optimizer])
    assert optimizer.state[network[0].weight]["exp_avg"] is live


class Wrapped(torch.optim.Optimizer):
    """As that of accelerate: it shows what it wraps."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    state = property(lambda self: self.optimizer.state)
    param_groups = property(lambda self: self.optimizer.param_groups)


class Sharp:
    """As SAM: a state of its own beside that of a base optimizer."""

    def __init__(self, base):
        self.base_optimizer, self.param_groups, self.state = base, base.param_groups, {}


def test_wrappers_schedulers_and_lists_are_understood():
    network = model()
    adam, sgd = torch.optim.Adam(network[0].parameters()), torch.optim.SGD(network[1].parameters(), 0.1)
    work(network, adam, sgd)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0)
    assert adam in optimizers_in(Wrapped(adam))
    assert optimizers_in(schedule) == [adam]
    assert optimizers_in([adam, sgd]) == [adam, sgd]
    assert optimizers_in(None) == []
    sharp = Sharp(adam)
    sharp.state[network[0].weight] = {"old": torch.ones(2)}
    assert optimizers_in(sharp) == [sharp, adam]
    for wrong in (3, "adam", network, {"lr": 1}):
        with pytest.raises(SettingsError, match="optimizer is a"):
            optimizers_in(wrong)


def test_a_wrapped_optimizer_goes_back():
    network = model()
    adam = torch.optim.Adam(network.parameters())
    work(network, adam)
    copy = OptimizerCopy()
    copy.take(optimizers_in(Wrapped(adam)))
    before = flat(adam.state_dict()["state"])
    work(network, adam)
    copy.restore(optimizers_in(Wrapped(adam)))
    assert same(before, adam.state_dict()["state"])
