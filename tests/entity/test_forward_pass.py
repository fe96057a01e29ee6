"""How an owner's model is run: its modes, copies, outputs, inputs and validation data."""

import logging
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import kuber
from kuber.errors import DivergedError, SettingsError
from kuber.learning.model_call import logits_from
from kuber.learning.swapped_network import SwappedNetwork

LABELS = ("a", "b", "c")
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(40, 4, generator=DRAWS)
Y = (X @ torch.randn(4, 3, generator=DRAWS)).argmax(1)
TASK = kuber.Task(name="t", labels=LABELS, input_shape=(4,))
BINARY = kuber.Task(name="binary", labels=("no", "yes"), input_shape=(4,))


@pytest.fixture
def enter(make_entity):
    def enter(name="me", model=None, **more):
        model = nn.Linear(4, 3) if model is None else model
        return make_entity(name, **({"model": model, "task": TASK, "validation": (X, Y)} | more))

    return enter


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def learned(model, x=X, y=Y):
    """Train a model, so that it is a teacher for a new one."""
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        output = model(**x) if isinstance(x, dict) else model(x)
        logits = logits_from(output, classes=3)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
    return model


def accuracy(output, y=Y):
    return (output.argmax(1) == y).float().mean().item()


class Returns(nn.Module):
    """A linear model that returns its logits in some form."""

    def __init__(self, form, classes=3):
        super().__init__()
        self.body, self.form = nn.Linear(4, classes), form

    def forward(self, x):
        return self.form(self.body(x))


# Modes and copies


class Awkward(nn.Module):
    """A model that cannot be copied, and whose train() is the owner's."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.drop = weight_norm(nn.Linear(4, 8)), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)
        self.lock, self.file, self.draws = threading.Lock(), open(__file__), torch.Generator()  # noqa: SIM115

    def train(self, mode=True):
        for module in self.children():
            module.train(mode)
        self.training = mode
        self.norm.training = False

    def forward(self, x):
        self.features = self.drop(self.norm(self.body(x)))
        return self.head(self.lstm(self.features.unsqueeze(1))[0][:, 0])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_phase_with_a_teacher_trains_and_publishes_a_model_that_cannot_be_copied(enter, hub):
    teacher = enter("teacher", learned(Awkward()))
    assert teacher.publish()
    model = Awkward()
    model.train()
    student = enter("student", model)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        teachers = student.step(optimizer)
        assert len(teachers) == 1
        assert [module.training for module in model.children()] == [True, False, True, True, True]
        mean = model.norm.running_mean.clone()
        for _ in range(2):
            logits = model(X)
            kept = model.features
            loss = nn.functional.cross_entropy(logits, Y) + teachers.loss(logits, X, Y)
            assert model.features is kept
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert torch.equal(model.norm.running_mean, mean)
        assert not student.keep_if_better(optimizer) or student.publish()
    model.file.close()
    teacher.model.file.close()


def test_a_teacher_of_the_own_architecture_runs_the_own_module(enter):
    other = learned(nn.Linear(4, 3))
    enter("teacher", other).publish()
    student = enter("student")
    (teacher,) = student.discover()
    assert isinstance(teacher.network, SwappedNetwork)
    assert torch.equal(teacher.network(X), other(X))
    assert list(teacher.network.parameters()) == []
    teacher.network.to(torch.float64).requires_grad_(False)
    assert student.model.weight.requires_grad
    assert student.model.weight.dtype == torch.float32


def test_training_is_bit_equal_with_own_teachers_asked_in_between(enter):
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
    enter("teacher", learned(nn.Sequential(*layers))).publish()
    states = []
    for asked in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        teachers = enter("student", model).step(optimizer) if asked else None
        for _ in range(5):
            logits = model(X)
            if asked:
                assert teachers(X).isfinite().all()
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, Y).backward()
            optimizer.step()
        states.append([*model.state_dict().values(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_evaluating_the_current_model_copies_no_weights(enter, monkeypatch):
    entity = enter()
    monkeypatch.setattr("kuber.entity.model_adapter.weights_of", lambda model: pytest.fail("copied"))
    monkeypatch.setattr("kuber.entity.model_adapter.swapped_weights", lambda *_: pytest.fail("swapped"))
    assert entity.evaluate().accuracy == pytest.approx(accuracy(entity.model(X)))


def test_an_owner_may_evaluate_in_inference_mode(enter):
    entity = enter()
    with torch.inference_mode():
        entity.evaluate()
        entity.publish()
    assert entity.model(X).requires_grad


def test_random_states_are_the_owners_in_every_call(enter):
    class Draws(nn.Linear):
        def forward(self, x):
            torch.rand(1), np.random.rand(), random.random()
            return super().forward(x)

    loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(1))
    drawn = loader.generator.get_state()
    clever, model = learned(Draws(4, 3)), Draws(4, 3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    one = enter("one", clever, validation=loader)
    two = enter("two", model, validation=DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True))
    one.publish()
    for entity in (one, two):
        teachers = entity.step()
        entity.evaluate()
        entity.keep_if_better()
    assert len(teachers) == 1
    teachers(X)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    assert torch.equal(loader.generator.get_state(), drawn)


def test_fit_keeps_frozen_modules_frozen_and_takes_dicts(enter):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

        def forward(self, x, scale):
            return SimpleNamespace(logits=self.head(self.norm(self.body(x * scale))))

    model = Frozen()
    model.norm.eval()
    before = model.norm.running_mean.clone()
    batches = [{"x": X[:20].double(), "scale": torch.ones(20, 1), "labels": Y[:20]}]
    enter(model=model, validation=batches).fit(batches, rounds=2)
    assert torch.equal(model.norm.running_mean, before)
    assert model.training
    assert not model.norm.training


# Outputs


@pytest.mark.parametrize(
    "form",
    [
        lambda logits: SimpleNamespace(logits=logits, loss=None),
        lambda logits: {"logits": logits},
        lambda logits: (logits, "attention"),
    ],
)
@pytest.mark.process
def test_logits_are_taken_from_models_that_return_more_and_published_as_a_graph(enter, hub, form):
    model = learned(Returns(form))
    entity = enter("wrapped", model, formats=None)
    assert entity.evaluate().accuracy == pytest.approx(accuracy(model.body(X)))
    entity.publish()
    (record,) = hub[0].discover(kuber.Query()).items
    assert set(record.artifacts) == {"weights", "onnx"}
    (same,) = enter("same", Returns(form)).discover()
    (other,) = enter("other", nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))).discover()
    for teacher in (same, other):
        torch.testing.assert_close(teacher.network(X), model.body(X).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", [lambda z: z, lambda z: z.squeeze(1), lambda z: z.squeeze()])
@pytest.mark.process
def test_a_single_logit_is_a_binary_task(enter, hub, form):
    y = (X[:, 0] > 0).long()
    model = Returns(form, classes=1)
    with torch.no_grad():
        model.body.weight.copy_(torch.tensor([[9.0, 0, 0, 0]]))
        model.body.bias.zero_()
    entity = enter("single", model, task=BINARY, validation=(X, y), formats=None)
    assert entity.evaluate().accuracy == 1.0
    entity.publish()
    (record,) = hub[0].discover(kuber.Query()).items
    assert set(record.artifacts) == {"weights", "onnx"}
    (teacher,) = enter("two", nn.Linear(4, 2), task=BINARY, validation=(X, y)).discover()
    assert teacher.evaluation.accuracy == 1.0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(4, 5), r"returns shape \(3, 5\) for 3 samples, but the task has 3 labels"),
        (nn.Linear(4, 1), r"shape \(3, 1\).*A single logit needs a task of two labels"),
        (Returns(lambda z: z.mean()), r"shape \(\) for 3 samples"),
        (Returns(lambda z: z.argmax(1)), "numbers of type int64"),
        (Returns(lambda z: z * torch.nan), "returns NaN for samples of validation"),
        (Returns(lambda z: z / 0), "returns infinite numbers for samples of validation|returns NaN"),
        (Returns(lambda z: None), "returns a NoneType"),
        (Returns(lambda z: 1 / 0), r"shape \(3, 4\), float32: ZeroDivisionError: division by zero\."),
        (nn.Linear(7, 3), r"does not take the samples of validation, shape \(3, 4\), float32: RuntimeError: mat1"),
    ],
)
def test_other_answers_are_refused_in_the_constructor(enter, model, words, tmp_path):
    with pytest.raises(SettingsError, match=words) as caught:
        enter(model=model)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "me").exists()


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        (nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), BINARY, "between 0 and 1"),
        (nn.Sequential(nn.Linear(4, 2), nn.Softmax(1)), BINARY, "look like probabilities"),
        (nn.Linear(4, 2), BINARY, None),
    ],
)
def test_probabilities_in_place_of_logits_are_said(enter, model, task, words, caplog):
    with caplog.at_level(logging.WARNING, "kuber"):
        enter(model=model, task=task, validation=(X, Y % 2))
    assert [words in message for message in caplog.messages] == ([True] if words else [])


def test_answers_that_became_nan_are_an_error_of_evaluate(enter):
    entity = enter()
    with torch.no_grad():
        entity.model.weight.fill_(torch.nan)
    with pytest.raises(DivergedError):
        entity.evaluate()


# Evaluation by the owner's function


def count(network):
    assert not any(module.training for module in network.modules())
    assert not torch.is_grad_enabled()
    right = network(X).argmax(1) == Y
    pairs = [(int(right[label == Y].sum()), int((label == Y).sum())) for label in range(3)]
    correct, total = zip(*pairs, strict=True)
    return kuber.Evaluation(test_set=kuber.Digest.of(b"mine"), correct=correct, total=total)


def test_the_owners_function_gets_the_owners_module(enter):
    seen = []

    def evaluate(network):
        seen.append(network)
        return count(network)

    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train()
    other = learned(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)))
    enter("teacher", other, validation=None, evaluate=count).publish()
    entity = enter(model=model, validation=None, evaluate=evaluate)
    before = model[0].weight.clone()
    (teacher,) = entity.discover()
    assert seen == [model, model]
    assert teacher.evaluation != entity.evaluation
    assert torch.equal(model[0].weight, before)
    assert model.training


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (0.93, "function evaluate must return a kuber.Evaluation, not a float"),
        (
            kuber.Evaluation(test_set=kuber.Digest.of(b"x"), correct=(1, 1), total=(2, 2)),
            "function evaluate returns counts of 2 classes, but the task has 3 labels",
        ),
    ],
)
def test_the_result_of_the_owners_function_is_checked(enter, result, words):
    entity = enter(validation=None, evaluate=lambda network: result)
    with pytest.raises(SettingsError, match=words):
        entity.evaluate()


def test_without_validation_data_the_model_is_tried_on_zeros(enter):
    with pytest.raises(SettingsError, match=r"returns shape \(2, 4\) for 2 samples, but the task has 3 labels"):
        enter(model=nn.Linear(4, 4), validation=None, evaluate=count)
    enter(model=nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 3)), validation=None, evaluate=count)


# Validation data


def test_floating_samples_get_the_dtype_of_the_model(enter):
    plain = nn.Linear(4, 3)
    expected = accuracy(plain(X))
    for place, kind in enumerate((torch.float32, torch.float64, torch.bfloat16)):
        model = nn.Linear(4, 3).to(kind)
        model.load_state_dict(plain.state_dict())
        for dtype in (torch.float16, torch.float32, torch.float64):
            found = enter(f"{place} {dtype}", model, validation=(X.to(dtype), Y)).evaluate().accuracy
            assert found == pytest.approx(expected, abs=0.1)
    double = enter("double", validation=(X.double(), Y))
    assert double.evaluate().accuracy == pytest.approx(accuracy(double.model(X)))


def test_the_digest_is_that_of_the_data_as_given(enter):
    digest = kuber.test_set_digest((X, Y))
    assert digest == kuber.test_set_digest([(X[:7], Y[:7]), (X[7:], Y[7:])]) == kuber.test_set_digest([X, Y])
    assert digest == kuber.test_set_digest((X.numpy(), Y.numpy())) == kuber.test_set_digest(TensorDataset(X, Y))
    double = kuber.test_set_digest((X.double(), Y))
    assert double != digest
    enter(validation=(X.double(), Y), task=kuber.Task(name="t", labels=LABELS, input_shape=(4,), test_set=double))


def test_a_model_that_converts_bytes_takes_them(enter):
    x = (X * 20 + 128).clamp(0, 255).byte()
    with pytest.raises(SettingsError, match=r"are uint8, which the model does not take.*x\.float\(\) / 255"):
        enter(validation=(x, Y))
    enter(model=nn.Sequential(Returns(lambda z: z)), validation=(X, Y))

    class Converts(nn.Linear):
        def forward(self, x):
            return super().forward(x.float() / 255)

    model = Converts(4, 3)
    assert enter("bytes", model, validation=(x, Y)).evaluate().accuracy == pytest.approx(accuracy(model(x)))


class Column:
    """Numbers as pandas holds them."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __array__(self, dtype=None, copy=None):
        return self.numbers.numpy()


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


@pytest.mark.parametrize(
    "validation",
    [
        (X, Y.int()),
        (X, Y.byte()),
        (X, Y.float()),
        (X, Y.unsqueeze(1)),
        (X.numpy(), Y.numpy()),
        [X, Y],
        ((X[:20], Y[:20]), (X[20:], Y[20:])),
        [(X[:20], Y[:20]), (X[20:], Y[20:]), (X[:0], Y[:0])],
        TensorDataset(X, Y),
        Stream(),
        DataLoader(TensorDataset(X, Y), batch_size=16),
        {"input": X, "labels": Y},
        [{"input": X, "label": Y}],
        [({"input": X}, Y)],
        [((X,), Y)],
        (X.tolist(), Y.tolist()),
        (X, Y.tolist()),
        [Column(X), Column(Y)],
    ],
)
def test_usual_forms_of_validation_data_are_taken(enter, validation):
    entity = enter(validation=validation)
    assert entity.evaluate().accuracy == pytest.approx(accuracy(entity.model(X)))
    assert sum(entity.evaluate().total) == 40


def test_a_generator_is_read_once(enter):
    entity = enter(validation=((X[start : start + 8], Y[start : start + 8]) for start in range(0, 40, 8)))
    assert sum(entity.evaluate().total) == sum(entity.evaluate().total) == 40


def test_bool_labels_are_taken(enter):
    entity = enter(model=nn.Linear(4, 2), task=BINARY, validation=(X, Y > 0))
    assert entity.evaluate().total == (int((Y == 0).sum()), int((Y > 0).sum()))


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        ([], "validation data are empty"),
        ((X[:0], Y[:0]), "validation data are empty"),
        ((X, Y[:30]), "have 40 samples, but 30 labels"),
        ((X, Y + 0.5), "must be whole numbers"),
        ((X, Y.float() * torch.nan), "must be whole numbers"),
        ((X, torch.rand(40, 3)), r"not of shape \(40, 3\)"),
        ((X, Y + 1), "must be from 0 to 2, but 3 occurs"),
        ((X, torch.where(Y > 0, Y, -100)), "-100 occurs; leave out samples"),
        ([(X[:5], Y[:5]), (X[5:, :3], Y[5:])], r"have shape \(3,\), but those of the task \(4,\)"),
        (X, "validation is a Tensor"),
        (7, "validation is a int"),
        ([(X,)], "argument validation cannot be used: A batch is a tuple of 1"),
        ([{"input": X}], "cannot be used: A batch has the keys 'input'.*collate="),
        ([(["text"] * 40, Y)], "cannot be used: A batch has a str where a tensor is expected.*collate="),
        (list(zip(X, Y, strict=True)), "yields single samples; give batches"),
        ([(X, Y), {"input": X, "labels": Y}], "differ in form"),
        ({"input": X, "other": X, "labels": Y}, "does not take the inputs of validation.*TypeError.*pass collate="),
        ((np.array(["a"] * 40), Y.numpy()), "has an array of str.* where a tensor is expected"),
        ((X, ["a"] * 40), "has a list of 40 texts where a tensor is expected"),
        ((X, nn.functional.one_hot(Y)), r"give y.argmax\(1\)"),
        ((X.to_sparse(), Y), "has sparse tensors"),
    ],
)
def test_other_validation_data_are_refused_in_one_sentence(enter, validation, words, tmp_path):
    with pytest.raises(SettingsError, match=words) as caught:
        enter(validation=validation)
    assert "validation" in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "me").exists()


def test_a_collate_that_fails_is_named(enter):
    with pytest.raises(
        SettingsError, match="The function collate raised KeyError: 'image', for a batch of validation"
    ):
        enter(validation=[{"x": X, "y": Y}], collate=lambda batch: (batch["image"], batch["y"]))


def test_samples_with_nan_are_taken_by_a_model_that_fills_them(enter):
    x = X.clone()
    x[17, 2] = torch.nan
    with pytest.raises(SettingsError, match="hold 1 samples with values that are not finite"):
        enter(validation=(x, Y))
    enter("fills", nn.Sequential(Fill(), nn.Linear(4, 3)), validation=(x, Y)).step()


class Fill(nn.Module):
    def forward(self, x):
        return x.nan_to_num()


# Several inputs


class Text(nn.Module):
    """A classifier of padded token ids, as transformers has them."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 5), nn.Linear(5, 3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2).float()
        hidden = (self.embed(input_ids) * mask).sum(1) / mask.sum(1)
        return SimpleNamespace(logits=self.head(hidden))


def padded(length, count=6):
    ids = torch.randint(1, 9, (count, length), generator=torch.Generator().manual_seed(length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 3}


WORDS = kuber.Task(name="words", labels=LABELS, input_shape=(8,))


@pytest.mark.process
def test_dict_batches_of_several_lengths_are_evaluated_published_and_taught(enter, hub, caplog):
    batches = [padded(length) for length in (3, 5, 8)]
    with caplog.at_level(logging.WARNING, "kuber"):
        inputs = {name: value for name, value in batches[0].items() if name != "labels"}
        model = learned(Text(), inputs, batches[0]["labels"])
        teacher = enter("teacher", model, task=WORDS, validation=batches, formats=None)
    assert len(caplog.messages) == 1
    assert "weights only" in caplog.text
    assert sum(teacher.evaluate().total) == 18
    teacher.publish()
    (record,) = hub[0].discover(kuber.Query()).items
    assert set(record.artifacts) == {"weights"}
    (found,) = enter("student", Text(), task=WORDS, validation=batches).discover()
    assert torch.equal(found.network(inputs), teacher.model(**inputs).logits)


@pytest.mark.process
def test_a_graph_of_one_input_is_no_teacher_for_several(enter, tmp_path):
    enter("graph", nn.Linear(8, 3), task=WORDS, validation=(torch.randn(6, 8), Y[:6]), formats=("onnx",)).publish()
    student = enter("student", Text(), task=WORDS, validation=[padded(5)])
    assert not student.discover()
    text = (tmp_path / "student" / "events.jsonl").read_text("utf-8")
    assert "It takes one tensor, but the validation data here are input_ids (1, 5) int64" in text


def test_several_inputs_are_passed_in_order_or_by_collate(enter):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 3)

        def forward(self, a, b):
            return self.body(a - b)

    model = Two()
    expected = accuracy(model(X, X.flip(1)))
    assert enter("tuple", model, validation=[(X, X.flip(1), Y)]).evaluate().accuracy == pytest.approx(expected)
    records = [{"image": X, "age": X.flip(1), "target": Y}]
    collated = enter(
        "collate", model, validation=records, collate=lambda batch: ((batch["image"], batch["age"]), batch["target"])
    )
    assert collated.evaluate().accuracy == pytest.approx(expected)
    with pytest.raises(SettingsError, match="collate must return a pair"):
        enter("wrong", model, validation=records, collate=lambda batch: batch["image"])


# Judged modules and wrappers


def test_the_judged_module_is_evaluated_and_published(enter, hub):
    raw = learned(nn.Linear(4, 3))
    averaged = torch.optim.swa_utils.AveragedModel(raw)
    with torch.no_grad():
        raw.weight.neg_()
    entity = enter("ema", raw, judged=averaged)
    assert entity.evaluate().accuracy == pytest.approx(accuracy(averaged(X)))
    entity.publish()
    student = enter("plain", nn.Linear(4, 3))
    (teacher,) = student.discover()
    assert torch.equal(teacher.network(X), averaged(X))
    better = nn.Linear(4, 3).state_dict()
    entity._adapter.load(better)
    assert all(torch.equal(raw.state_dict()[name], tensor) for name, tensor in better.items())
    assert all(torch.equal(averaged.module.state_dict()[name], tensor) for name, tensor in better.items())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrapped_models_teach_plain_ones(enter, wrap):
    plain = learned(nn.Sequential(nn.Linear(4, 3)))
    entity = enter("wrapped", wrap(plain))
    assert entity.evaluate().accuracy == pytest.approx(accuracy(plain(X)))
    entity.publish()
    (teacher,) = enter("plain", nn.Sequential(nn.Linear(4, 3))).discover()
    assert torch.equal(teacher.network(X), plain(X))
