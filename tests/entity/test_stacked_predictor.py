"""Predictors that hold copies of teachers: what they answer, and what they leave as it is."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.evaluation import Evaluation
from kuber.errors import SettingsError

LABELS = ("a", "b", "c")
CENTRES = torch.tensor([[0.0, 3.0], [3.0, -2.0], [-3.0, -2.0]])


def samples(counts, seed):
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(torch.tensor(counts))
    return CENTRES[y] + torch.randn(len(y), 2, generator=draws), y


def answering(weak):
    """A network that knows the classes by their centres, but never answers with one of them."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(CENTRES)
        model.bias.copy_(-(CENTRES**2).sum(1) / 2)
        model.weight[weak], model.bias[weak] = 0.0, -14.0
    return model


@pytest.fixture
def enter(tmp_path):
    made, hub = [], kuber.memory_hub()

    def enter(name, weak, *, labels=LABELS, counts=(30, 30, 3), model=None, **more):
        fields = {
            "task": kuber.Task(name="clouds", labels=labels, input_shape=(2,)),
            "validation": samples((20, 20, 4), seed=len(made)),
            "class_counts": counts,
            "formats": ("weights",),
        } | more
        made.append(
            kuber.Entity(name, model=model or answering(weak), hub=hub, folder=tmp_path / str(len(made)), **fields)
        )
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def accuracy(model, counts=(50, 50, 50)):
    x, y = samples(counts, seed=9)
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"labels": LABELS[::-1], "validation": (samples((20, 20, 4), 7)[0], 2 - samples((20, 20, 4), 7)[1])},
        pytest.param({"model": nn.Sequential(answering(0)), "formats": ("onnx",)}, marks=pytest.mark.process),
    ],
    ids=["same network", "other order of the labels", "graph"],
)
def test_a_teacher_answers_for_the_class_that_the_model_does_not_know(enter, other):
    if other.get("labels"):
        reversed_model = answering(0)
        with torch.no_grad():
            reversed_model.weight.copy_(reversed_model.weight.flip(0))
            reversed_model.bias.copy_(reversed_model.bias.flip(0))
        other = {"model": reversed_model, **other}
    sender, entity = enter("b", 0, **other), enter("a", 2)
    sender.step()
    sender.publish()
    teachers = entity.step()
    assert len(teachers) == 1
    before = copy.deepcopy(entity.model.state_dict())
    made = entity.predictor("uniform", teachers=teachers)
    assert accuracy(made) > 0.9 > accuracy(entity.predictor("uniform"))
    assert all(torch.equal(before[name], value) for name, value in entity.model.state_dict().items())
    assert not teachers.used  # in a loss, for which the gate would judge the phase
    x = samples((5, 5, 5), 3)[0]
    answers = made(x)
    with torch.no_grad():
        entity.model.weight.zero_()  # the predictor is of its own
    entity.close()
    assert torch.equal(made(x), answers)


def test_without_class_counts_the_own_mixture_is_that_of_the_validation_data(enter):
    sender, entity = enter("b", 0), enter("a", 2, class_counts=None)
    sender.step()
    sender.publish()
    made = entity.predictor(teachers=entity.step())
    assert not made.shift.any()
    assert torch.allclose(made.network.log_prior, torch.tensor([21.0, 21.0, 5.0]).log() - torch.tensor(47.0).log())


def test_without_teachers_it_is_the_model_as_it_was(enter):
    entity = enter("a", 2)
    teachers = entity.step()
    x = samples((5, 5, 5), 3)[0]
    assert not teachers
    assert torch.equal(entity.predictor(teachers=teachers)(x), entity.predictor()(x))
    unstated = enter("c", 2, class_counts=None)
    assert torch.equal(unstated.predictor(teachers=unstated.step())(x), entity.model(x))


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("no kernel for this")


def test_a_teacher_that_cannot_be_run_is_left_out(enter, caplog):
    sender, entity = enter("b", 0), enter("a", 2)
    sender.step()
    sender.publish()
    (teacher,) = entity.step()
    made = entity.predictor("uniform", teachers=[dataclasses.replace(teacher, network=Broken())])
    assert not made.network.teachers
    assert "is left out of the predictor: no kernel for this" in caplog.text


def test_what_cannot_be_stacked_is_refused(enter):
    def evaluate(network):
        return Evaluation(test_set=kuber.test_set_digest(samples((1, 1, 1), 0)), correct=(1, 1, 0), total=(1, 1, 1))

    sender, entity = enter("b", 0), enter("a", 2)
    with pytest.raises(SettingsError, match="teachers must be what step or discover returned"):
        entity.predictor(teachers="b")
    sender.step()
    sender.publish()
    teachers = entity.step()
    assert teachers
    with pytest.raises(SettingsError, match="validation data"):
        enter("c", 2, validation=None, evaluate=evaluate).predictor(teachers=teachers)
