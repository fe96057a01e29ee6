"""Predictors: models whose logits are adjusted to the classes of the place where they are used."""

import pytest
import torch
from torch import nn

import kuber
from kuber.errors import SettingsError

LABELS = ("a", "b", "c")
TASK = kuber.Task(name="clouds", labels=LABELS, input_shape=(2,))
COUNTS = (97, 7, 1)  # with one sample more of each class: 98, 8 and 2 of 108
LOG = torch.tensor([98.0, 8.0, 2.0]).log()
W = ("weights",)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 3), nn.Dropout(0.5))


@pytest.fixture
def enter(tmp_path):
    made = []

    def enter(model=None, **more):
        draws = torch.Generator().manual_seed(0)
        fields = {
            "task": TASK,
            "validation": (torch.randn(12, 2, generator=draws), torch.arange(12) % 3),
            "hub": kuber.memory_hub(),
            "folder": tmp_path / str(len(made)),
            "class_counts": COUNTS,
            "formats": W,
        }
        made.append(kuber.Entity("a", model=model or Net(), **fields | more))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def differences(entity, **arguments):
    """What the predictor adds to the logits of the model in evaluation mode, up to a constant."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    made = entity.predictor(**arguments)
    entity.model.eval()
    with torch.no_grad():
        found = made(x) - entity.model(x)
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-5)
    return found[0] - found[0, 0]


@pytest.mark.parametrize(
    ("carried", "arguments", "added"),
    [
        ("own", {}, 0 * LOG),
        ("own", {"prior": "uniform"}, -LOG),
        ("own", {"prior": "uniform", "strength": 0.5}, -LOG / 2),
        ("uniform", {"prior": "own"}, LOG),
        ("uniform", {}, LOG),
        ("own", {"prior": (1, 7, 97)}, torch.tensor([2.0, 8.0, 98.0]).log() - LOG),
        ("own", {"prior": (0.25, 0.25, 0.5)}, torch.tensor([1.0, 1.0, 2.0]).log() - LOG),
        ("own", {"prior": {"a": 1, "b": 7, "c": 97}}, torch.tensor([2.0, 8.0, 98.0]).log() - LOG),
    ],
)
def test_the_prior_that_is_asked_for_takes_the_place_of_the_one_in_the_logits(enter, carried, arguments, added):
    found = differences(enter(carried_prior=carried), **arguments)
    assert torch.allclose(found, added - added[0], atol=1e-4)


def test_an_unknown_prior_is_estimated_from_unlabelled_samples(enter):
    """The model tells the classes apart, so the estimate is near the frequencies of the samples."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 9.0], [9.0, -9.0], [-9.0, -9.0]]))
        model.bias.zero_()
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    samples = centres.repeat_interleave(torch.tensor([10, 30, 160]), dim=0)
    found = differences(enter(model, carried_prior="uniform"), prior="estimated", samples=samples)
    expected = torch.tensor([11.0, 31.0, 161.0]).log()
    assert torch.allclose(found, expected - expected[0], atol=0.01)


def test_the_owners_training_goes_on_as_if_there_were_no_predictor(enter):
    entity = enter()
    model = entity.model
    model[0].weight.grad = torch.ones(3, 2)
    model[1].train(False)
    generator, gradient = torch.get_rng_state(), model[0].weight.grad
    made = entity.predictor("uniform")
    assert torch.equal(torch.get_rng_state(), generator)
    assert [part.training for part in model.modules()] == [True, True, False]
    assert model[0].weight.grad is gradient
    before = made(torch.ones(1, 2))
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert torch.equal(made(torch.ones(1, 2)), before)
    assert not any(part.training for part in made.modules())
    assert not any(weight.requires_grad for weight in made.parameters())


@pytest.mark.process
def test_the_prior_is_inside_an_exported_graph(enter):
    made = enter().predictor("uniform")
    x = torch.randn(5, 2)
    graph = kuber.onnx.OnnxModel(kuber.onnx.export(made, input_shape=(2,)), input_shape=(2,), classes=3)
    assert torch.allclose(graph(x), made(x), atol=1e-4)


class OneLogit(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return {"logits": self.linear(x).squeeze(1)}


def test_a_model_with_one_logit_gets_two(enter):
    task = kuber.Task(name="two", labels=("a", "b"), input_shape=(2,))
    validation = torch.randn(8, 2), torch.arange(8) % 2
    entity = enter(OneLogit(), task=task, validation=validation, class_counts=(9, 1))
    made = entity.predictor("uniform")
    x = torch.randn(3, 2)
    with torch.no_grad():
        own = entity.model(x)["logits"]
    assert torch.allclose(made(x).diff(dim=1).squeeze(1), own + torch.tensor(10 / 2).log(), atol=1e-5)


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        ({"class_counts": None}, {}, "It is not known which class frequencies"),
        ({"carried_prior": "unknown"}, {}, "It is not known which class frequencies"),
        ({"class_counts": None, "carried_prior": "uniform"}, {}, "prior is own, but the entity has no class_counts"),
        ({}, {"prior": "mine"}, "prior is 'mine'; give own, uniform, estimated"),
        ({}, {"prior": (1, 2)}, "prior has 2 numbers, but the task has 3 labels"),
        ({}, {"prior": (0, 0, 0)}, "counts, one for each label"),
        ({}, {"strength": -1}, "strength is -1; give a number from 0"),
        ({}, {"prior": "estimated"}, "belong to prior"),
        ({}, {"samples": torch.zeros(1, 2)}, "belong to prior"),
        ({}, {"prior": "estimated", "samples": torch.zeros(1, 5)}, "samples cannot be used"),
        ({}, {"prior": "estimated", "samples": torch.zeros(0, 2)}, "samples"),
        ({}, {"prior": "estimated", "samples": torch.full((1, 2), torch.nan)}, "not finite"),
    ],
)
def test_impossible_priors_are_refused(enter, more, arguments, message):
    with pytest.raises(SettingsError, match=message):
        enter(**more).predictor(**arguments)
