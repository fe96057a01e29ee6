"""Tensors of every dtype: they travel over a hub to a student, or the constructor says that they do not."""

import logging

import pytest
import torch
from torch import nn

import kuber
from kuber.domain.tensor_dtypes import DTYPE_BYTES
from kuber.learning.weights import DTYPE_NAMES

TASK = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))
LABELS = torch.arange(8) % 2
VALIDATION = (2.0 * LABELS - 1)[:, None] * torch.arange(1, 5), LABELS  # all features positive, or all negative


def buffer_of(dtype):
    """Return a small tensor of this dtype; None for one that torch has a name for, but no numbers."""
    values = torch.tensor([[0, 1, 1, 0]])
    try:
        return torch.quantize_per_tensor(values.float(), 1.0, 0, dtype) if "q" in str(dtype) else values.to(dtype)
    except (RuntimeError, TypeError, NotImplementedError, ValueError):
        return None


NAMED = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
DTYPES = [dtype for dtype in NAMED if buffer_of(dtype) is not None]


class Net(nn.Module):
    def __init__(self, buffer):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.register_buffer("more", buffer)

    def forward(self, x):
        return self.head(x)


class WithState(Net):
    """A network whose state dict has an entry that is no tensor."""

    def get_extra_state(self):
        return {"scale": 1}

    def set_extra_state(self, state):
        assert state == {"scale": 1}


@pytest.fixture
def enter(tmp_path):
    made = []

    def enter(name, model, *, hub=None, **more):
        fields = {"task": TASK, "validation": VALIDATION, "folder": tmp_path / name}
        made.append(kuber.Entity(name, model=model, hub=hub or kuber.memory_hub(), **fields, **more))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def right(model):
    """Return the model with a head that is right about all samples."""
    model.head.weight.data.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 4))
    return model


def wrong(model):
    """Return the model with a head that is wrong about all samples."""
    right(model).head.weight.data.neg_()
    return model


def test_the_list_of_dtypes_is_that_of_hubs():
    assert set(DTYPE_NAMES) <= set(DTYPES)
    assert sorted(DTYPE_NAMES.values()) == sorted(DTYPE_BYTES)
    assert all(DTYPE_BYTES[name] == dtype.itemsize for dtype, name in DTYPE_NAMES.items())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_buffer_travels_or_the_constructor_names_it(enter, dtype):
    model, hub = right(Net(buffer_of(dtype))), kuber.memory_hub()
    if dtype not in DTYPE_NAMES:
        with pytest.raises(kuber.errors.SettingsError, match="cannot be published as weights: the tensor more is "):
            enter("teacher", model, hub=hub, formats=("weights",))
        return
    assert enter("teacher", model, hub=hub, formats=("weights",)).publish()
    student = enter("student", wrong(Net(torch.zeros_like(buffer_of(dtype)))), hub=hub, formats=("weights",))
    (teacher,) = student.discover()
    assert torch.equal(teacher.network(VALIDATION[0]), model(VALIDATION[0]))


@pytest.mark.process
@pytest.mark.parametrize(
    "model",
    [
        lambda: Net(torch.ones(2, dtype=torch.complex64)),
        lambda: Net(torch.tensor([0.0, -torch.inf])),
        lambda: WithState(torch.zeros(2)),
    ],
    ids=["complex", "infinite", "extra state"],
)
def test_a_model_with_other_tensors_is_published_as_a_graph_alone(enter, caplog, model):
    hub = kuber.memory_hub()
    with caplog.at_level(logging.WARNING, "kuber"):
        entity = enter("teacher", right(model()), hub=hub)
    (record,) = [record for record in caplog.records if record.name == "kuber"]
    assert record.getMessage().startswith("The model is published as a graph only: the ")
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.1)
    entity.step(optimizer)
    entity.step(optimizer)
    (knowledge,) = hub[0].discover(kuber.Query()).items
    assert set(knowledge.artifacts) == {"onnx"}
    assert len(enter("student", wrong(Net(torch.zeros(2))), hub=hub, formats=("weights",)).discover()) == 1


def test_a_model_that_travels_neither_as_weights_nor_as_a_graph_is_refused(enter):
    class Branching(Net):
        def forward(self, x):
            return torch.view_as_real(torch.fft.ifft(x.to(torch.complex64)))[:, :2, 0] + self.head(x)

    with pytest.raises(kuber.errors.SettingsError, match=r"cannot be published: .*tensor more is complex64"):
        enter("teacher", Branching(torch.ones(2, dtype=torch.complex64)))


def test_tied_and_non_contiguous_weights_travel(enter):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.a.weight.data.copy_(torch.eye(4).roll(1, 0))
            self.b.weight = self.a.weight
            self.head = nn.Linear(4, 2)
            self.head.weight = nn.Parameter(torch.randn(4, 2).t())
            self.register_buffer("none", torch.zeros(0, 3))
            self.register_buffer("one", torch.tensor(2.0))
            self.register_buffer("same", self.one)

        def forward(self, x):
            return self.head(self.b(self.a(x))) * self.same

    hub, model = kuber.memory_hub(), right(Tied())
    enter("teacher", model, hub=hub, formats=("weights",)).publish()
    (teacher,) = enter("student", wrong(Tied()), hub=hub, formats=("weights",)).discover()
    assert torch.allclose(teacher.network(VALIDATION[0]), model(VALIDATION[0]))


def test_parameters_of_an_own_class_travel(enter):
    class Marked(nn.Parameter):
        pass

    def made():
        model = Net(None)
        model.head.weight = Marked(torch.randn(2, 4))
        return model

    hub, model = kuber.memory_hub(), right(made())
    enter("teacher", model, hub=hub, formats=("weights",)).publish()
    (teacher,) = enter("student", wrong(made()), hub=hub, formats=("weights",)).discover()
    assert torch.equal(teacher.network(VALIDATION[0]), model(VALIDATION[0]))


def test_a_lazy_or_infinite_model_is_refused(enter):
    with pytest.raises(kuber.errors.SettingsError, match="run one batch through the model first"):
        enter("lazy", nn.LazyLinear(2))
    model = nn.Linear(4, 2)
    model.bias.data[0] = torch.nan
    with pytest.raises(
        kuber.errors.SettingsError, match="parameter bias of the model holds a number that is not fin"
    ):
        enter("infinite", model)


def test_weights_that_are_no_longer_finite_or_the_same_are_left_out(enter, caplog):
    hub, model = kuber.memory_hub(), right(Net(torch.zeros(2)))
    entity = enter("teacher", model, hub=hub, formats=("weights",))
    with caplog.at_level(logging.WARNING, "kuber"):
        model.more[0] = torch.inf
        assert entity._adapter.artifacts(entity._adapter.weights()) == {}
        assert entity._adapter.artifacts(entity._adapter.weights()) == {}
        model.more = torch.zeros(3)
        assert entity._adapter.artifacts(entity._adapter.weights()) == {}
        model.more = torch.ones(2)
        assert set(entity._adapter.artifacts(entity._adapter.weights())) == {"weights"}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("The model is not published: the tensor more holds numbers that are not finite")
    assert messages[1].startswith("The model is not published: its tensors have other names, dtypes or shapes")


@pytest.mark.parametrize(
    "buffer",
    [torch.ones(2, dtype=torch.complex64), torch.ones(2).to(torch.float8_e5m2)],
    ids=["complex", "float8"],
)
@pytest.mark.process
def test_a_loop_goes_on_with_tensors_that_do_not_travel(enter, tmp_path, buffer):
    model, hub = right(Net(buffer)), kuber.memory_hub()
    for _ in range(2):  # the second resumes
        entity = enter("teacher", model, hub=hub)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            entity.step(optimizer)
        entity.keep_if_better(optimizer)
        entity.close()


@pytest.mark.process
def test_a_strategy_that_averages_weights_needs_weights_that_travel(enter):
    with pytest.raises(
        kuber.errors.SettingsError, match="strategy merge averages weights, but this model is publish"
    ):
        enter("teacher", Net(torch.ones(2, dtype=torch.complex64)), strategy="merge")
