"""The best model of an owner's training: the last, an earlier one, or an average, used without disturbing it."""

import pytest
import torch
from torch import nn

import kuber
from kuber.entity.best_model import EarlierModels
from kuber.learning.merging import merge

LABELS = ("a", "b")
TASK = kuber.Task(name="toy", labels=LABELS, input_shape=(2,), test_set=kuber.Digest.of(b"common"))


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def evaluation(percent):
    return kuber.Evaluation(test_set=TASK.test_set, correct=(percent, 0), total=(100, 0))


@pytest.fixture
def enter(tmp_path):
    """An entity whose evaluations find the percentages of a list, and a function that trains and ends a phase."""
    made = []

    def enter(percentages, **more):
        model, script = Net(), list(percentages)
        entity = kuber.Entity(
            "a",
            model=model,
            task=TASK,
            evaluate=lambda network: evaluation(script.pop(0)),
            hub=kuber.memory_hub(),
            folder=tmp_path / "a",
            strategy="local",
            formats=("weights",),
            **more,
        )
        made.append(entity)

        def phase():
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += torch.randn_like(parameter)
                model[1].running_mean += torch.randn(4)
            entity.step()
            return {name: tensor.clone() for name, tensor in model.state_dict().items()}

        return entity, phase

    yield enter
    for entity in made:
        entity.close()


def same(weights, others):
    return all(torch.equal(weights[name], tensor) for name, tensor in others.items())


def test_before_an_evaluation_there_is_none(enter):
    entity, _ = enter([])
    assert entity.best is None


@pytest.mark.parametrize(
    ("phases", "average", "choice", "place"),
    [([50, 60, 70], 65, "last", 2), ([50, 70, 60], 65, "best", 1), ([70, 50, 60], 75, "average", None)],
)
def test_it_is_the_best_of_last_earlier_and_average(enter, phases, average, choice, place):
    entity, phase = enter([*phases, average])
    states = [phase() for _ in phases]
    best = entity.best
    assert best.choice == choice
    assert best.evaluation.accuracy == max(*phases, average) / 100
    assert same(best.state_dict(), merge(states[::-1], [1.0] * 3) if place is None else states[place])


def test_using_it_leaves_the_training_as_it_is(enter):
    entity, phase = enter([70, 50, 40, 60])
    first = phase()
    phase()
    now = phase()
    entity.model.train()
    entity.model(torch.randn(3, 2)).sum().backward()
    before = [parameter.grad.clone() for parameter in entity.model.parameters()]
    now = {name: tensor.clone() for name, tensor in entity.model.state_dict().items()}
    random = torch.random.get_rng_state()
    best = entity.best
    with best.used() as network:
        assert network is entity.model
        assert not network.training
        assert same(network.state_dict(), first)
        network(torch.randn(3, 2))
    assert same(entity.model.state_dict(), now)
    assert entity.model.training
    assert all(torch.equal(p.grad, grad) for p, grad in zip(entity.model.parameters(), before, strict=True))
    assert torch.equal(torch.random.get_rng_state(), random)
    best.load()
    assert same(entity.model.state_dict(), first)


def test_later_training_does_not_change_it(enter):
    entity, phase = enter([50, 60, 40, 55, 30, 20])
    phase()
    second = phase()
    best = entity.best
    assert same(best.weights, second)
    phase()
    phase()
    assert same(best.weights, second)


def test_without_copies_it_is_the_last(enter):
    entity, phase = enter([70, 50, 60], keep_best=False)
    phase()
    last = phase()
    best = entity.best
    assert (best.choice, best.evaluation.accuracy) == ("last", 0.5)
    phase()
    assert same(best.weights, last)


def test_an_average_that_cannot_be_judged_is_left_out(enter):
    entity, phase = enter([50, 60])
    phase()
    last = phase()
    best = entity.best  # the script has no third evaluation
    assert best.choice == "last"
    assert same(best.weights, last)


def test_models_of_other_tensors_are_forgotten():
    earlier = EarlierModels(keeps=True)
    earlier.add({"w": torch.zeros(2)}, evaluation(90))
    choice, found, _ = earlier.choose({"w": torch.zeros(3)}, evaluation(10), lambda weights: evaluation(99))
    assert (choice, found) == ("last", evaluation(10))
