"""An entity in a Hugging Face trainer, with a hub in memory; nothing is downloaded."""

import copy
import logging
import pickle

import pytest
import torch

import kuber
from kuber.entity.state.event_log import FILE_NAME, read_events

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from kuber.integrations.transformers import KUberTrainerCallback, Logits  # noqa: E402 - needs transformers

pytestmark = pytest.mark.filterwarnings("ignore")
LENGTH, WORDS = 8, 50


def sentences(count, seed, classes=(0, 1, 2)):
    """Return token ids, with tokens of its own for each class; some rows end with padding (0)."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes)[torch.randint(0, len(classes), (count,), generator=draws)]
    own = 2 + 16 * y.unsqueeze(1) + torch.randint(0, 16, (count, LENGTH), generator=draws)
    noise = torch.randint(2, WORDS, (count, LENGTH), generator=draws)
    x = torch.where(torch.rand(count, LENGTH, generator=draws) < 0.6, own, noise)
    lengths = torch.randint(5, LENGTH + 1, (count, 1), generator=draws)
    return torch.where(torch.arange(LENGTH) < lengths, x, 0), y


COMMON = sentences(200, 99)
TASK = kuber.Task(name="words", labels=("a", "b", "c"), input_shape=(LENGTH,), test_set=kuber.test_set_digest(COMMON))


def bert(seed=0, **more):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(
        vocab_size=WORDS, max_position_embeddings=16, num_labels=3, pad_token_id=0, **sizes | more
    )
    return transformers.BertForSequenceClassification(config)


def rows(data):
    """Return rows as a tokenizer does, without padding."""
    return [
        {"input_ids": x[x != 0].tolist(), "attention_mask": [1] * int((x != 0).sum()), "labels": int(y)}
        for x, y in zip(*data, strict=True)
    ]


def collate(batch):
    longest = max(len(row["input_ids"]) for row in batch)
    padded = {
        name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in batch])
        for name in ("input_ids", "attention_mask")
    }
    return padded | {"labels": torch.tensor([row["labels"] for row in batch])}


def trainer(model, data, folder, *callbacks, epochs=3, size=20, cls=transformers.Trainer, **more):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=size,
        learning_rate=5e-3,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
        **more,
    )
    return cls(
        model=model, args=arguments, train_dataset=rows(data), data_collator=collate, callbacks=list(callbacks)
    )


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A model that was trained on all classes."""
    model = bert()
    trainer(model, sentences(400, 5), tmp_path_factory.mktemp("hf-strong"), epochs=10).train()
    return model


@pytest.fixture
def strong(enter, taught):
    """Publish a teacher that knows all classes."""
    model = copy.deepcopy(taught)
    entity = enter("strong", Logits(model), task=TASK, validation=COMMON)
    assert entity.evaluate().accuracy > 0.7
    entity.publish()
    return entity


def gradients(model):
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]


def events(folder, kind):
    return [event.detail for event in read_events(folder / FILE_NAME) if event.kind == kind]


def test_a_student_with_teachers_becomes_better_than_alone(enter, strong, tmp_path):
    x, y = sentences(400, 1)
    rare = (y != 0) | (torch.arange(400) % 12 == 0)  # few sentences of class 0
    private = x[rare], y[rare]
    alone, model = bert(3), bert(3)
    trainer(alone, private, tmp_path / "hf-alone", epochs=10).train()
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    trainer(model, private, tmp_path / "hf", KUberTrainerCallback(entity, weight=3.0), epochs=10).train()
    entity_alone = enter("alone", Logits(alone), task=TASK, validation=COMMON)
    assert entity.evaluate().accuracy > entity_alone.evaluate().accuracy + 0.02
    assert entity.round == 11
    absorbed = events(tmp_path / "student", "absorbed")
    assert [detail["method"] for detail in absorbed] == ["guide"] * 10
    assert any(detail["kept"] for detail in absorbed)


@pytest.mark.parametrize(("steps", "batches"), [(1, 1), (2, 2)])
def test_the_gradient_is_that_of_both_losses(enter, strong, tmp_path, steps, batches):
    """If the model sums its loss over the batches of a step, the teachers' loss is still a mean over samples."""
    model = bert(3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    start = copy.deepcopy(model)
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    callback, kept = KUberTrainerCallback(entity, weight=0.5), {}

    class Keep(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            kept["teachers"] = callback.teachers

        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            kept["gradient"] = gradients(model)

    data = sentences(20 * batches, 1, (1, 2))
    more = {"gradient_accumulation_steps": steps, "max_grad_norm": 0.0}
    trainer(model, data, tmp_path / "hf", callback, Keep(), epochs=1, **more).train()
    plain = {}

    class KeepPlain(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            plain["gradient"] = gradients(model)

    again = copy.deepcopy(start)
    trainer(again, data, tmp_path / "hf2", KeepPlain(), epochs=1, **more).train()
    x, y = data
    (0.5 * kept["teachers"].loss(Logits(start)(x), x, y)).backward()
    parts = zip(kept["gradient"], plain["gradient"], gradients(start), strict=True)
    assert all(torch.allclose(whole, own + added, atol=1e-5) for whole, own, added in parts)


def test_a_shorter_batch_is_padded_and_a_longer_one_cut():
    logits = Logits(bert())
    ids = torch.tensor([[5, 6, 7]])
    assert logits.pad_or_cut(ids, 5).tolist() == [[5, 6, 7, 0, 0]]
    assert logits.pad_or_cut(ids, 2).tolist() == [[5, 6]]
    logits.eval()
    assert torch.allclose(logits(ids), logits(logits.pad_or_cut(ids, 5)), atol=1e-5)


def test_logits_are_found_in_an_output_that_is_a_tuple():
    ids = torch.tensor([[5, 6, 7]])
    logits, plain = Logits(bert(return_dict=False)).eval(), Logits(bert()).eval()
    assert torch.equal(logits(ids), plain(ids))


@pytest.mark.process
def test_another_architecture_runs_the_graph(enter, tmp_path):
    model = bert()
    trainer(model, sentences(200, 5), tmp_path / "hf-strong", epochs=2).train()
    teacher = enter("teacher", Logits(model), task=TASK, validation=COMMON, formats=("onnx",))
    teacher.publish()
    (found,) = enter("student", torch.nn.Sequential(Bag()), task=TASK, validation=COMMON).discover()
    logits = teacher.model.eval()(COMMON[0][:5])
    assert torch.allclose(found.network(COMMON[0][:5]), logits, atol=1e-3)


class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(WORDS, 3)

    def forward(self, ids):
        return self.words(ids)


def test_a_trainer_with_its_own_loss_gives_a_warning(enter, strong, tmp_path, caplog):
    class Own(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            return torch.nn.functional.cross_entropy(model(**inputs).logits, labels)

    model = bert(3)
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    with caplog.at_level(logging.WARNING, logger="kuber"):
        trainer(model, sentences(20, 1), tmp_path / "hf", KUberTrainerCallback(entity), epochs=1, cls=Own).train()
    assert "used none of its teachers" in caplog.text


def test_phases_of_two_epochs_keep_the_learning_rates(enter, strong, tmp_path):
    model, rates = bert(3), []

    class Keep(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **kwargs):
            rates.append(optimizer.param_groups[0]["lr"])

    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    callback = KUberTrainerCallback(entity, every=2, weight=1e4)  # so large that phases are undone
    trainer(model, sentences(20, 1), tmp_path / "hf", callback, Keep(), epochs=4).train()
    assert entity.round == 3
    assert rates == pytest.approx([5e-3, 3.75e-3, 2.5e-3, 1.25e-3])


def failures(caplog):
    """Return the warnings but the one that there are no teachers."""
    messages = [record.getMessage() for record in caplog.records if record.name == "kuber"]
    return [message for message in messages if "No teachers in" not in message]


def weights_after(folder, *callbacks, seed=3, model=None, **more):
    model = model or bert(seed)
    torch.manual_seed(7)
    trainer(model, sentences(60, 1), folder, *callbacks, epochs=2, **more).train()
    return [tensor.clone() for tensor in model.state_dict().values()]


OPTIONS = [
    {},
    {"bf16": True},
    {"gradient_checkpointing": True},
    {"gradient_accumulation_steps": 2},
    {"torch_compile": True, "torch_compile_backend": "eager"},
]


@pytest.mark.parametrize("more", OPTIONS, ids=lambda more: next(iter(more), "plain"))
def test_without_teachers_the_training_is_the_same_to_the_last_bit(enter, tmp_path, more, caplog):
    alone = weights_after(tmp_path / "alone", **more)
    model = bert(3)
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    seen = []

    class Look(transformers.TrainerCallback):
        def on_step_begin(self, *_, **kwargs):
            seen.append(len(model._forward_hooks))

    with caplog.at_level(logging.WARNING, logger="kuber"):
        same = weights_after(tmp_path / "hf", KUberTrainerCallback(entity), Look(), model=model, **more)
    assert all(torch.equal(one, other) for one, other in zip(alone, same, strict=True))
    assert not failures(caplog)
    assert not model._forward_hooks
    if "torch_compile" not in more:
        assert sum(seen) == 1  # in the first batch, which is checked


@pytest.mark.parametrize("more", OPTIONS, ids=lambda more: next(iter(more), "plain"))
def test_teachers_are_used_in_every_form_of_training(enter, strong, tmp_path, more, caplog):
    model = bert(3)
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    with caplog.at_level(logging.WARNING, logger="kuber"):
        guided = weights_after(tmp_path / "hf", KUberTrainerCallback(entity), model=model, **more)
    alone = weights_after(tmp_path / "alone", **more)
    assert events(tmp_path / "student", "absorbed")
    assert not failures(caplog)
    assert not all(torch.equal(one, other) for one, other in zip(guided, alone, strict=True))


@pytest.mark.parametrize("more", OPTIONS, ids=lambda more: next(iter(more), "plain"))
def test_an_entity_takes_the_batches_of_the_trainer_as_they_are(enter, taught, tmp_path, more, caplog):
    """Model, validation and teachers are those of the trainer: names, attention mask, lengths that differ."""
    data = rows(COMMON)
    validation = [collate(data[start : start + 20]) for start in range(0, 200, 20)]
    task = kuber.Task(name="batches", labels=("a", "b", "c"), input_shape=(LENGTH,))
    strong = enter("strong", copy.deepcopy(taught), task=task, validation=validation)
    assert strong.evaluate().accuracy > 0.7
    assert strong.publish()
    model = bert(3)
    entity = enter("student", model, task=task, validation=validation)
    callback, used = KUberTrainerCallback(entity), []

    class Look(transformers.TrainerCallback):
        def on_step_end(self, *_, **kwargs):
            used.append(len(callback.teachers.used))

    with caplog.at_level(logging.WARNING, logger="kuber"):
        weights_after(tmp_path / "hf", callback, Look(), model=model, **more)
    assert used
    assert set(used) == {1}
    assert not failures(caplog)
    assert events(tmp_path / "student", "absorbed")


def test_a_copy_of_the_model_in_training_has_no_teachers(enter, strong, tmp_path):
    model, copies = bert(3), []
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    callback = KUberTrainerCallback(entity)

    class Copy(transformers.TrainerCallback):
        def on_step_begin(self, *_, **kwargs):
            copies.extend((copy.deepcopy(model), pickle.loads(pickle.dumps(model))))

    trainer(model, sentences(20, 1), tmp_path / "hf", callback, Copy(), epochs=1).train()
    x, y = COMMON
    for one in copies:
        (hook,) = one._forward_hooks.values()
        assert hook._callback is None
        assert one.train()(input_ids=x, labels=y).loss.isfinite()


@pytest.mark.parametrize("teachers", [False, True])
def test_labels_that_do_not_fit_are_refused_on_the_first_batch_teachers_or_not(enter, request, tmp_path, teachers):
    if teachers:
        request.getfixturevalue("strong")
    model = bert(3)
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    several = [row | {"labels": [1.0, 0.0, 1.0]} for row in rows(sentences(20, 1))]
    tool = trainer(model, sentences(20, 1), tmp_path / "hf", KUberTrainerCallback(entity), epochs=1)
    tool.train_dataset = several  # for which the model has a loss of several labels for each sample
    with pytest.raises(kuber.errors.SettingsError, match="labels given as floats"):
        tool.train()
    assert not model._forward_hooks
    model.config.problem_type = None
    trainer(model, sentences(20, 1), tmp_path / "hf", KUberTrainerCallback(entity), epochs=1).train()
    assert not model._forward_hooks


def test_nothing_that_fails_later_ends_the_training(enter, strong, tmp_path, caplog):
    model = bert(3)
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    step, calls = entity.step, []

    def failing(optimizer):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        teachers = step(optimizer)
        if len(calls) == 3:
            teachers.loss = None  # as if the loss failed
        return teachers

    entity.step = failing
    with caplog.at_level(logging.WARNING, logger="kuber"):
        trainer(model, sentences(20, 1), tmp_path / "hf", KUberTrainerCallback(entity), epochs=3).train()
    assert len(calls) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "student trains on without teachers: [Errno 28] No space left on device",
        "student trains on without teachers: 'NoneType' object is not callable",
    ]


def test_a_training_that_failed_leaves_no_second_loss_behind(enter, strong, tmp_path):
    class Stop(transformers.TrainerCallback):
        def on_step_end(self, *_, **kwargs):
            raise ZeroDivisionError

    model, counts = bert(3), []
    entity = enter("student", Logits(model), task=TASK, validation=COMMON)
    with pytest.raises(ZeroDivisionError):
        trainer(model, sentences(40, 1), tmp_path / "hf", KUberTrainerCallback(entity), Stop(), epochs=1).train()

    class Look(transformers.TrainerCallback):
        def on_step_end(self, *_, **kwargs):
            counts.append(len(model._forward_hooks))

    trainer(model, sentences(40, 1), tmp_path / "hf", KUberTrainerCallback(entity), Look(), epochs=1).train()
    assert counts == [1, 1]
    assert not model._forward_hooks


def test_tasks_without_one_label_for_each_sample_are_refused_in_the_constructor(enter):
    config = bert().config
    tokens = transformers.BertForTokenClassification(config)
    entity = enter("student", Logits(bert()), task=TASK, validation=COMMON)
    for model, words in ((tokens, "one label"), (bert(problem_type="multi_label_classification"), "problem_type")):
        entity._owned.model = Logits(model)
        with pytest.raises(kuber.errors.SettingsError, match=words) as caught:
            KUberTrainerCallback(entity)
        assert "\n" not in caught.value.message


def test_an_unsupported_trainer_is_refused_in_a_sentence(enter, tmp_path):
    model = bert()
    with pytest.raises(kuber.errors.SettingsError, match="Logits"):
        KUberTrainerCallback(enter("bag", Bag(), task=TASK, validation=COMMON))
    with pytest.raises(kuber.errors.SettingsError, match="pad_token_id"):
        Logits(torch.nn.Linear(2, 2))
    entity = enter("student", Logits(bert()), task=TASK, validation=COMMON)
    for tool, words in (
        (trainer(model, COMMON, tmp_path / "hf", KUberTrainerCallback(entity)), "not the one that is trained"),
        (
            trainer(
                entity.model.model, COMMON, tmp_path / "hf", KUberTrainerCallback(entity), label_smoothing_factor=0.1
            ),
            "smoothing",
        ),
    ):
        with pytest.raises(kuber.errors.SettingsError, match=words) as caught:
            tool.train()
        assert "\n" not in caught.value.message
