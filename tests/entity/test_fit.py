"""`Entity.fit`: what it takes as batches, and what it leaves alone."""

import tempfile

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kuber
from kuber.errors import SettingsError

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
PAIRS = list(zip(X.split(16), Y.split(16), strict=True))
COUNTS = kuber.Evaluation(test_set=kuber.Digest.of(b"own"), correct=(1, 1), total=(2, 2))
TASK = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))


@pytest.fixture
def enter(tmp_path):
    made = []

    def enter(model=None, **more):
        torch.manual_seed(0)
        fields = {"task": TASK, "validation": (X, Y), "hub": kuber.memory_hub(), "formats": ("weights",)}
        model = nn.Linear(4, 2) if model is None else model
        made.append(kuber.Entity("one", model=model, **({"folder": tmp_path} | fields | more)))
        return made[-1]

    yield enter
    for entity in made:
        entity.close()


def steps_of(model):
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(1) if module.training else None)
    return seen


@pytest.mark.parametrize(
    "batches",
    [PAIRS, tuple(PAIRS), DataLoader(TensorDataset(X, Y), batch_size=16), DataLoader(PAIRS, batch_size=None)],
    ids=["list", "tuple", "loader", "pairs"],
)
def test_every_epoch_trains_on_all_batches(enter, batches):
    entity = enter()
    seen = steps_of(entity.model)
    entity.fit(batches, rounds=2, epochs=3)
    assert len(seen) == 2 * 3 * 4


@pytest.mark.parametrize(
    "batches",
    [iter(PAIRS), zip(X, Y, strict=True), map(tuple, PAIRS), (pair for pair in PAIRS), enumerate(PAIRS)],
    ids=["iter", "zip", "map", "generator", "enumerate"],
)
@pytest.mark.parametrize("strategy", ["exchange", "local-balanced"])
def test_batches_for_one_time_are_refused(enter, batches, strategy):
    entity = enter(strategy=strategy)
    with pytest.raises(SettingsError, match="batches can be iterated only once; give a list or a DataLoader"):
        entity.fit(batches, rounds=2)


@pytest.mark.parametrize("strategy", ["exchange", "local-balanced"])
def test_batches_that_give_nothing_the_second_time_are_refused(enter, strategy):
    class Once:
        def __init__(self):
            self.rest = iter(PAIRS)

        def __iter__(self):
            return self.rest

    with pytest.raises(SettingsError, match="batches can be iterated only once; give a list or a DataLoader"):
        enter(strategy=strategy).fit(Once(), rounds=1, epochs=2)


@pytest.mark.parametrize("strategy", ["exchange", "local-balanced"])
@pytest.mark.parametrize(
    "batches", [[], DataLoader(TensorDataset(X, Y), batch_size=100, drop_last=True)], ids=["empty", "dropped"]
)
def test_a_phase_without_a_step_is_refused(enter, batches, strategy):
    with pytest.raises(SettingsError, match="batches has no batch"):
        enter(strategy=strategy).fit(batches, rounds=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 1.5}, "rounds is 1.5"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batches": 3}, "batches is a int"),
        ({"batches": [3]}, "A batch is"),
        ({"optimizer": 3}, "optimizer is a int"),
        ({"optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)}, "no parameter of the model"),
        ({"batches": [(X, torch.full((64,), 7))]}, "Labels of batches"),
    ],
)
def test_an_argument_is_refused_by_its_name(enter, change, words):
    with pytest.raises(SettingsError, match=words):
        enter().fit(**{"batches": PAIRS, "rounds": 1} | change)


@pytest.mark.parametrize("strategy", ["exchange", "local-balanced"])
@pytest.mark.parametrize("kind", ["soft", "ignored", "int32", "uint8"])
def test_labels_are_those_of_cross_entropy(enter, strategy, kind):
    soft = 0.9 * nn.functional.one_hot(Y, 2).float() + 0.05
    labels = {"soft": soft, "ignored": torch.where(torch.arange(64) % 4 == 0, -100, Y), "int32": Y.int()}
    y = labels.get(kind, Y.byte())
    entity = enter(strategy=strategy)
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.5)
    found = entity.fit(list(zip(X.split(16), y.split(16), strict=True)), rounds=2, epochs=5, optimizer=optimizer)
    assert found.accuracy > 0.8


@pytest.mark.parametrize("strategy", ["exchange", "local"])
@pytest.mark.parametrize("y", [Y.float(), Y[:, None].float(), Y[:, None], Y.bool(), 0.9 * Y + 0.05])
def test_labels_for_one_logit_are_those_of_its_usual_loss(enter, strategy, y):
    entity = enter(nn.Linear(4, 1), strategy=strategy)
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.5)
    found = entity.fit(list(zip(X.split(16), y.split(16), strict=True)), rounds=1, epochs=8, optimizer=optimizer)
    assert found.accuracy > 0.8


@pytest.mark.parametrize("strategy", ["exchange", "local"])
def test_labels_as_floats_that_are_no_probabilities_are_refused(enter, strategy):
    task = kuber.Task(name="t", labels=("a", "b", "c"), input_shape=(4,))
    entity = enter(nn.Linear(4, 3), strategy=strategy, task=task)
    with pytest.raises(SettingsError, match="batches"):
        entity.fit([(X, Y.float())], rounds=1)


def test_batches_may_be_mappings_or_collated(enter):
    for collate, batch in (
        (lambda batch: (batch["points"], batch["sides"]), {"points": X, "sides": Y}),
        (None, {"input": X, "labels": Y}),
    ):
        entity = enter(collate=collate, folder=tempfile.mkdtemp(), validation=None, evaluate=lambda network: COUNTS)
        seen = steps_of(entity.model)
        entity.fit([batch], rounds=1, epochs=2)
        assert len(seen) == 2


def test_frozen_parts_stay_in_evaluation_mode(enter):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[0].eval()
    statistics = model[0].running_mean.clone()
    modes = []
    model[1].register_forward_hook(lambda module, inputs, output: modes.append((module.training, model[0].training)))
    enter(model).fit(PAIRS, rounds=2)
    assert (True, False) in modes
    assert torch.equal(statistics, model[0].running_mean)
    assert [part.training for part in model.modules()] == [True, False, True, True]


def test_a_model_in_evaluation_mode_is_trained_and_given_back_so(enter):
    model = nn.Sequential(nn.Dropout(), nn.Linear(4, 2)).eval()
    seen = steps_of(model)
    enter(model).fit(PAIRS, rounds=1)
    assert len(seen) == 4
    assert not any(part.training for part in model.modules())


def test_optimizers_of_all_kinds_train(enter):
    model = nn.Linear(4, 2)
    entity = enter(model)
    halves = [torch.optim.SGD([model.weight], 0.1), torch.optim.Adam([model.bias])]
    for optimizer in (halves, torch.optim.LBFGS(model.parameters(), 0.1)):
        before = model.weight.detach().clone()
        entity.fit(PAIRS, rounds=1, optimizer=optimizer)
        assert not torch.equal(before, model.weight)
