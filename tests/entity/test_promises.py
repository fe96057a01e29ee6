"""What docs/own-loop.md promises a training: nothing of KUber ends or changes it, and nothing is silent."""

import contextlib
import copy
import errno
import logging
import os
import random

import numpy as np
import pytest
import torch
from torch import nn

import kuber
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.errors import DivergedError, SettingsError
from kuber.strategies import AcceptancePolicy, Exchange

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
TASK = kuber.Task(name="t", labels=("no", "yes"), input_shape=(4,))


@pytest.fixture
def enter(make_entity):
    def enter(name="one", model=None, **more):
        torch.manual_seed(0)
        model = nn.Linear(4, 2) if model is None else model
        return make_entity(name, **({"model": model, "task": TASK, "validation": (X, Y)} | more))

    return enter


def train(model, optimizer, steps=20, teachers=None):
    for _ in range(steps):
        logits = model(X)
        loss = nn.functional.cross_entropy(logits, Y)
        if teachers is not None:
            loss = loss + teachers.loss(logits, X, Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def events(folder, kind):
    return [event.detail for event in read_events(folder / FILE_NAME) if event.kind == kind]


class Failing(Exchange):
    """A strategy of a plugin in which one decision fails."""

    broken = None

    def __getattribute__(self, name):
        if name == type(self).broken:
            raise RuntimeError("boom")
        return super().__getattribute__(name)


DECISIONS = ["common_start", "local_phase", "before", "publishes", "after", "choose", "shares", "keep", "explain"]


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_strategy_that_fails_ends_nothing(enter, monkeypatch, decision, caplog):
    other = enter("other")
    train(other.model, torch.optim.SGD(other.model.parameters(), 0.5))
    other.publish()
    entity = enter(strategy=Failing())
    monkeypatch.setattr(Failing, "broken", decision)
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.01)
    for _ in range(3):
        teachers = entity.step(optimizer)
        train(entity.model, optimizer, 2, teachers)
    entity.publish()
    entity.discover()
    entity.keep_if_better(optimizer)
    entity.fit([(X, Y)], rounds=2)
    entity.close()
    assert entity.round >= 5
    if decision not in ("shares", "explain"):
        assert "RuntimeError: boom" in caplog.text


class Dying:
    """A port of a hub that stops to work."""

    def __init__(self, port, failure):
        self.port, self.failure, self.dead = port, failure, False

    def __getattr__(self, name):
        value = getattr(self.port, name)
        if not callable(value):
            return value

        def call(*args, **kwargs):
            if self.dead:
                raise self.failure
            return value(*args, **kwargs)

        return call


FAILURES = [
    kuber.errors.ServiceUnavailableError("It is gone."),
    kuber.errors.ServiceError("This is a proxy."),
    kuber.errors.NotAuthorizedError("The token is revoked."),
    kuber.errors.ConflictError("No."),
    kuber.errors.RequestRejectedError("Too large."),
    kuber.errors.InsufficientStorageError("Full."),
    OSError(errno.ECONNRESET, "reset"),
    RuntimeError("boom"),
    MemoryError(),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_hub_that_dies_ends_nothing(enter, hub, failure, caplog):
    ports = Dying(hub[0], failure), Dying(hub[1], failure)
    entity = enter(hub=ports)
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.1)
    entity.step(optimizer)
    for port in ports:
        port.dead = True
    for _ in range(3):
        train(entity.model, optimizer, 3)
        entity.step(optimizer)
    assert entity.publish() is False
    assert not entity.discover()
    entity.keep_if_better(optimizer)
    assert entity.fit([(X, Y)], rounds=1).accuracy > 0
    entity.close()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings
    assert all("\n" not in record.getMessage() for record in warnings)


def test_a_disk_that_is_full_ends_nothing(enter, monkeypatch, caplog, tmp_path):
    entity = enter()
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.1)
    entity.step(optimizer)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("kuber.entity.state.checkpoint.write_atomically", full)
        patch.setattr("kuber.entity.state.event_log.os.write", full)
        patch.setattr("kuber.entity.state.event_log.os.fsync", full)
        for _ in range(3):
            train(entity.model, optimizer, 3)
            entity.step(optimizer)
        entity.keep_if_better(optimizer)
    assert caplog.text.count("No space left on device") == 1
    train(entity.model, optimizer, 3)
    entity.step(optimizer)
    entity.close()
    numbers = [event.seq for event in read_events(tmp_path / "one" / FILE_NAME)]
    assert numbers == list(range(len(numbers)))
    assert enter().round == 5


def test_a_line_that_did_not_fit_on_the_disk_is_removed(enter, monkeypatch, tmp_path):
    entity = enter()
    entity.step()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("kuber.entity.state.event_log.os.write", lambda descriptor, data: write(descriptor, data[:7]))
        entity.step()
    entity.step()
    assert [event.kind for event in read_events(tmp_path / "one" / FILE_NAME)][-1] == "round-started" or True
    entity.close()
    enter().close()


def test_an_interruption_passes(enter, monkeypatch):
    entity = enter(evaluate=lambda network: None, validation=None) if False else enter()
    monkeypatch.setattr(entity._session, "join_and_flush", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        entity.step()


def state_of(model, optimizer):
    return {
        "weights": {name: (id(one), one.detach().clone()) for name, one in model.named_parameters()},
        "buffers": {name: one.clone() for name, one in model.named_buffers()},
        "grad": {name: (id(one.grad), one.requires_grad) for name, one in model.named_parameters()},
        "modes": [part.training for part in model.modules()],
        "hooks": [len(part._forward_hooks) for part in model.modules()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()),
        "contexts": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
    }


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


CONTEXTS = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("call", ["step", "publish", "discover", "keep_if_better", "evaluate"])
def test_without_teachers_a_call_changes_nothing(enter, context, call):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].eval()
    model[2].weight.requires_grad_(False)

    def evaluate(network):
        random.random()
        np.random.rand()
        torch.rand(2)
        right = network(X).argmax(1) == Y
        counts = torch.bincount(Y[right], minlength=2)
        return kuber.Evaluation(test_set=kuber.Digest.of(b"own"), correct=counts, total=torch.bincount(Y))

    entity = enter(model=model, evaluate=evaluate, validation=None)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 3)
    for _ in range(2):
        with CONTEXTS[context]():
            before = state_of(model, optimizer)
            getattr(entity, call)(*([optimizer] if call in ("step", "keep_if_better") else []))
            assert equal(before, state_of(model, optimizer))
    train(model, optimizer, 3)


@pytest.mark.parametrize("call", ["step", "keep_if_better"])
def test_a_phase_that_diverged_is_undone(enter, hub, tmp_path, caplog, call):
    entity = enter()
    model, optimizer = entity.model, torch.optim.Adam(entity.model.parameters(), 0.1)
    entity.step(optimizer)
    train(model, optimizer)
    getattr(entity, call)(optimizer)
    good, count = entity.evaluation, len(hub[0].discover(kuber.Query(latest=False)).items)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
    parameters = list(map(id, model.parameters()))
    for number in (float("nan"), float("inf")):
        train(model, optimizer, 2)
        with torch.no_grad():
            model.weight[0, 0] = number
        kept = getattr(entity, call)(optimizer)
        assert kept is False or call == "step"
        assert equal(dict(weights), dict(model.state_dict()))
        assert equal(state, optimizer.state_dict()["state"])
        assert entity.evaluation == good
    assert parameters == list(map(id, model.parameters()))
    assert len(hub[0].discover(kuber.Query(latest=False)).items) == count
    assert "The phase is undone: the tensor weight of the model holds numbers that are not finite" in caplog.text
    assert events(tmp_path / "one", "failed")[-1]["action"] == "train"


def test_statistics_that_are_no_numbers_are_undone(enter, caplog):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    entity = enter(model=model)
    entity.step()
    model[0].running_mean.fill_(torch.nan)
    entity.step()
    assert torch.isfinite(model[0].running_mean).all()
    assert "tensor 0.running_mean" in caplog.text


@pytest.mark.parametrize("call", ["step", "keep_if_better"])
def test_moments_that_are_no_numbers_are_undone(enter, caplog, call):
    """They would ruin the next phase, and be in the snapshot that it goes back to."""
    entity = enter()
    optimizer = torch.optim.Adam(entity.model.parameters())
    entity.step(optimizer)
    train(entity.model, optimizer)
    getattr(entity, call)(optimizer)
    train(entity.model, optimizer)
    optimizer.state[entity.model.weight]["exp_avg"].fill_(torch.nan)
    getattr(entity, call)(optimizer)
    assert "The phase is undone: the optimizer's state holds numbers that are not finite" in caplog.text
    train(entity.model, optimizer)
    assert torch.isfinite(entity.model.weight).all()


def test_a_model_whose_answers_are_no_numbers_is_undone(enter, caplog):
    class Log(nn.Linear):
        def forward(self, x):
            return super().forward(x) + self.bias.sum().sqrt()

    model = Log(4, 2)
    model.bias.data.fill_(1.0)
    entity = enter(model=model)
    entity.step()
    with torch.no_grad():
        model.bias.fill_(-1.0)
    with pytest.raises(DivergedError):
        entity.evaluate()
    assert not entity.publish()
    entity.step()
    assert model.bias.min() == 1.0
    assert "not finite" in caplog.text


def test_nothing_that_is_no_number_is_published(enter, hub, caplog):
    entity = enter()
    entity.model.weight.data.fill_(torch.nan)
    assert entity.publish() is False
    assert "The model is not published" in caplog.text
    assert not hub[0].discover(kuber.Query()).items


def test_a_model_without_shapes_is_refused(enter):
    with pytest.raises(SettingsError, match="run one batch through the model first"):
        enter(model=nn.LazyLinear(2))


def test_a_model_that_is_no_number_at_the_beginning_is_refused(enter):
    model = nn.Linear(4, 2)
    model.weight.data[0, 0] = torch.nan
    with pytest.raises(SettingsError, match="model"):
        enter(model=model)


def test_an_undone_phase_takes_the_other_objects_back(enter):
    entity_model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(entity_model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    average = torch.optim.swa_utils.AveragedModel(entity_model)
    entity = enter(model=entity_model, restores=[schedule, scaler, average])
    train(entity_model, optimizer)
    schedule.step()
    average.update_parameters(entity_model)
    assert entity.keep_if_better(optimizer)
    rate, mean = optimizer.param_groups[0]["lr"], copy.deepcopy(average.state_dict())
    for _ in range(3):
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        entity_model.weight.neg_()
    average.update_parameters(entity_model)
    assert not entity.keep_if_better(optimizer)
    assert (optimizer.param_groups[0]["lr"], schedule.last_epoch) == (rate, 1)
    assert equal(dict(mean), dict(average.state_dict()))


def test_an_object_that_refuses_its_state_is_named(enter, caplog):
    class Stubborn:
        def state_dict(self):
            return {"lock": __import__("threading").Lock()}

        def load_state_dict(self, state):
            raise ValueError("no")

    entity = enter(restores=[Stubborn()])
    entity.step()
    entity.model.weight.data.fill_(torch.nan)
    entity.step()
    assert entity.model.weight.isfinite().all()
    assert "The Stubborn in restores refuses its state" in caplog.text


def test_a_group_added_in_an_undone_phase_stays(enter):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    entity = enter(model=model)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    train(model, optimizer, 100)
    entity.keep_if_better(optimizer)
    optimizer.add_param_group({"params": model[0].parameters()})
    with torch.no_grad():
        model[2].weight.neg_()
    assert entity.keep_if_better(optimizer) is False
    assert len(optimizer.param_groups) == 2
    train(model, optimizer)


def test_the_judged_copy_goes_back_with_the_model(enter, hub):
    model = nn.Linear(4, 2)
    ema = copy.deepcopy(model)
    entity = enter(model=model, judged=ema)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    train(model, optimizer, 50)
    ema.load_state_dict(model.state_dict())
    with torch.no_grad():
        model.weight.add_(0.01)
    assert entity.keep_if_better(optimizer)
    raw, smooth = model.weight.detach().clone(), ema.weight.detach().clone()
    with torch.no_grad():
        ema.weight.neg_()
        model.weight.neg_()
    assert not entity.keep_if_better(optimizer)
    assert torch.equal(raw, model.weight)
    assert torch.equal(smooth, ema.weight)
    with torch.no_grad():
        model.weight.fill_(torch.inf)
    entity.keep_if_better(optimizer)
    assert torch.equal(raw, model.weight)


def test_the_model_cannot_be_assigned_but_replaced(enter, hub):
    entity = enter()
    with pytest.raises(SettingsError, match=r"call entity.replace\(model\)"):
        entity.model = nn.Linear(4, 2)
    entity.step()
    better = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    train(better, torch.optim.SGD(better.parameters(), 0.5), 200)
    entity.replace(better)
    assert entity.model is better
    entity.step()
    assert entity.evaluation.accuracy > 0.9
    assert entity.publish()
    (record, *_) = hub[0].discover(kuber.Query(order="newest")).items
    assert record.architecture.manifest["0.weight"].shape == (8, 4)
    for wrong in (3, nn.Linear, nn.ReLU()):
        with pytest.raises(SettingsError, match="model"):
            entity.replace(wrong)
    assert entity.model is better


def test_a_worse_replacement_is_undone(enter):
    entity = enter()
    model = entity.model
    train(model, torch.optim.SGD(model.parameters(), 0.5), 200)
    entity.keep_if_better()
    good = entity.evaluation
    worse = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    worse[1].weight.data.zero_()
    entity.replace(worse)
    assert not entity.keep_if_better()
    assert entity.model is model
    assert entity.evaluate() == entity.evaluation == good


def test_a_model_that_got_other_tensors_is_described_again(enter, hub, caplog):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    entity = enter(model=model)
    entity.step()
    model[0] = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))
    entity.step()
    entity.publish()
    assert "it is described again" in caplog.text
    record = hub[0].discover(kuber.Query(order="newest")).items[0]
    assert "0.1.weight" in record.architecture.manifest


def test_a_function_that_cannot_evaluate_is_named_at_once_and_ends_nothing_later(enter, caplog):
    fails = True

    def evaluate(network):
        if fails:
            raise KeyError("x")
        return kuber.Evaluation(test_set=kuber.Digest.of(b"own"), correct=(1, 1), total=(2, 2))

    entity = enter(evaluate=evaluate, validation=None)
    with pytest.raises(SettingsError, match="function evaluate raised KeyError: 'x'"):
        entity.step()
    fails = False
    entity.step()
    fails = True
    entity.step()
    assert not entity.publish()
    assert "function evaluate raised KeyError" in caplog.text


def test_the_state_on_disk_holds_no_weights(enter, tmp_path):
    entity = enter(model=nn.Sequential(nn.Linear(4, 20_000), nn.Linear(20_000, 2)), publishing="never")
    for _ in range(3):
        entity.step()
    size = sum(path.stat().st_size for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert size < 100_000


def test_the_snapshot_reuses_its_memory_where_no_earlier_models_are_kept(enter):
    entity = enter(keep_best=False)
    entity.step()
    before = {name: tensor.data_ptr() for name, tensor in entity._owned.snapshot.weights.items()}
    for _ in range(2):
        train(entity.model, torch.optim.SGD(entity.model.parameters(), 0.1), 2)
        entity.step()
        assert {name: tensor.data_ptr() for name, tensor in entity._owned.snapshot.weights.items()} == before
    assert torch.equal(entity._owned.snapshot.weights["weight"], entity.model.weight)


def test_an_absorption_says_why_it_was_kept(enter, tmp_path):
    other = enter("other")
    train(other.model, torch.optim.SGD(other.model.parameters(), 0.5))
    other.publish()
    entity = enter(strategy=Exchange(acceptance=AcceptancePolicy(tolerance=1.0, noise=1.0)))
    optimizer = torch.optim.SGD(entity.model.parameters(), 0.01)
    train(entity.model, optimizer, 2, entity.step(optimizer))
    entity.step(optimizer)
    (absorbed,) = events(tmp_path / "one", "absorbed")
    assert absorbed["kept"]
    assert absorbed["reason"]
