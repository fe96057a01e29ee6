"""An entity in a Lightning trainer, with a hub in memory."""

import logging
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kuber
from kuber.entity.state.event_log import FILE_NAME, read_events

lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402 - needs Lightning

from kuber.integrations.lightning import KUberCallback  # noqa: E402 - needs Lightning

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore")


def points(count, seed, classes=(0, 1, 2)):
    """Return points of three clouds in the plane, or of some of the three."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes)[torch.randint(0, len(classes), (count,), generator=draws)]
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return centres[y] + torch.randn(count, 2, generator=draws), y


COMMON = points(300, 99)
TASK = kuber.Task(name="clouds", labels=("a", "b", "c"), input_shape=(2,), test_set=kuber.test_set_digest(COMMON))


def network():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.0), nn.Linear(16, 3))


class Module(lightning.LightningModule):
    """A usual classifier."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)


class Gradients(lightning.Callback):
    """Keep the gradient of each step."""

    def __init__(self):
        self.gradients = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(torch.cat([parameter.grad.flatten().clone() for parameter in pl_module.parameters()]))


def loader(data, size=20):
    return DataLoader(TensorDataset(*data), batch_size=size)


def trainer(*callbacks, epochs=3, **more):
    fields = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return lightning.Trainer(**fields | more)


def publish_teacher(enter, model):
    """Train a teacher on all classes and publish it."""
    entity = enter("strong", model, task=TASK, validation=COMMON)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    x, y = points(500, 5)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    entity.publish()
    return entity


@pytest.fixture
def strong(enter):
    torch.manual_seed(0)
    return publish_teacher(enter, network())


def events(folder, kind):
    return [event.detail for event in read_events(folder / FILE_NAME) if event.kind == kind]


def student(enter):
    torch.manual_seed(3)
    module = Module()
    return module, enter("student", module.net, task=TASK, validation=COMMON)


def test_a_student_with_teachers_becomes_better_than_alone(enter, strong, tmp_path):
    private = points(200, 1, (1, 2))  # no samples of class 0
    torch.manual_seed(3)
    alone = Module()
    trainer(epochs=6).fit(alone, loader(private))
    module, entity = student(enter)
    callback = KUberCallback(entity)
    trainer(callback, epochs=6).fit(module, loader(private))
    entity_alone = enter("alone", alone.net, task=TASK, validation=COMMON)
    assert entity.evaluate().accuracy > entity_alone.evaluate().accuracy + 0.1
    assert entity.round == 7
    absorbed = events(tmp_path / "student", "absorbed")
    assert [detail["method"] for detail in absorbed] == ["guide"] * 6
    assert any(detail["kept"] for detail in absorbed)
    assert len(events(tmp_path / "student", "round-ended")) == 6
    assert events(tmp_path / "student", "published")


def scaling():
    """Return what Lightning makes of precision 16-mixed on a GPU, for the CPU; its factor is constant."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    plugin.autocast_context_manager = nullcontext
    return plugin


@pytest.mark.parametrize(("accumulate", "scaled"), [(1, False), (2, False), (1, True), (2, True)])
def test_the_gradient_is_that_of_both_losses(enter, strong, accumulate, scaled):
    module, entity = student(enter)
    kept, callback, batches = Gradients(), KUberCallback(entity, weight=0.5), []
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data = points(20 * accumulate, 1, (1, 2))

    class Keep(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batches.append((batch, callback.teachers))

    more = {"plugins": [scaling()]} if scaled else {}
    tool = trainer(callback, Keep(), kept, epochs=1, accumulate_grad_batches=accumulate, **more)
    tool.fit(module, loader(data))
    again = Module()
    again.load_state_dict(start)
    for (x, y), teachers in batches:
        assert len(teachers) == 1
        logits = again.net(x)
        loss = nn.functional.cross_entropy(logits, y) + 0.5 * teachers.loss(logits, x, y)
        (loss / accumulate).backward()
    (gradient,) = kept.gradients
    expected = torch.cat([parameter.grad.flatten() for parameter in again.parameters()])
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_the_module_itself_can_be_the_model_in_bfloat16_with_phases_of_two_epochs(enter, tmp_path):
    torch.manual_seed(0)
    publish_teacher(enter, Module())
    module = Module()
    entity = enter("student", module, task=TASK, validation=COMMON)
    trainer(KUberCallback(entity, every=2), epochs=4, precision="bf16-mixed").fit(
        module, loader(points(60, 1, (1, 2)))
    )
    assert entity.round == 3
    assert len(events(tmp_path / "student", "absorbed")) == 2


def test_training_modes_and_learning_rates_are_kept(enter, strong):
    class Scheduled(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 100.0)  # so high that each phase is undone
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

        def on_train_batch_start(self, batch, index):
            seen.append((self.net.training, self.net[2].training, self.trainer.optimizers[0].param_groups[0]["lr"]))

    seen = []
    torch.manual_seed(3)
    module = Scheduled()
    module.net[2].eval()  # as for a frozen part
    entity = enter("student", module.net, task=TASK, validation=COMMON)
    trainer(KUberCallback(entity), epochs=3).fit(module, loader(points(20, 1)))
    assert seen == [(True, False, 100.0), (True, False, 50.0), (True, False, 25.0)]


def test_the_callback_logs_teachers_and_accuracy(enter, strong, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    module, entity = student(enter)
    logger = CSVLogger(tmp_path / "csv")
    tool = trainer(KUberCallback(entity), epochs=2, logger=logger, log_every_n_steps=1)
    tool.fit(module, loader(points(40, 1)))
    assert tool.callback_metrics["kuber/teachers"] == 1
    logger.save()
    (file,) = (tmp_path / "csv").rglob("metrics.csv")
    header, *rows = file.read_text().splitlines()
    column = header.split(",").index("kuber/accuracy")
    logged = [float(row.split(",")[column]) for row in rows if row.split(",")[column]]
    assert len(logged) == 3
    assert logged[-1] == pytest.approx(entity.evaluation.accuracy)


@pytest.mark.parametrize("of_the_entity", [False, True])
def test_xy_or_collate_returns_samples_and_labels_of_other_batches(enter, strong, tmp_path, of_the_entity):
    class Named(Module):
        def training_step(self, batch, index):
            return super().training_step((batch["x"], batch["y"]), index)

    torch.manual_seed(3)
    module = Named()
    rows = [{"x": x, "y": y} for x, y in zip(*points(40, 1), strict=True)]

    def split(batch):
        return batch["x"], batch["y"]

    validation = [dict(zip("xy", COMMON, strict=True))] if of_the_entity else COMMON
    entity = enter("student", module.net, task=TASK, validation=validation, collate=split if of_the_entity else None)
    callback = KUberCallback(entity, xy=None if of_the_entity else split)
    trainer(callback, epochs=1).fit(module, DataLoader(rows, batch_size=10))
    assert events(tmp_path / "student", "absorbed")


def manual(module, tool):
    module.automatic_optimization = False


def two_optimizers(module, tool):
    tool.strategy.optimizers = [*tool.optimizers, *tool.optimizers]


def two_processes(module, tool):
    tool.strategy.world_size = 2


REFUSED = [
    (manual, "automatic"),
    (two_optimizers, "one optimizer"),
    (two_processes, "one process"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_an_unsupported_trainer_is_refused_in_a_sentence(enter, change, words):
    module, entity = student(enter)
    tool = trainer()
    tool.strategy.optimizers = [torch.optim.SGD(module.parameters(), 0.1)]
    change(module, tool)
    with pytest.raises(kuber.errors.SettingsError, match=words) as caught:
        KUberCallback(entity).on_train_start(tool, module)
    assert "\n" not in caught.value.message


def test_another_model_than_the_trained_one_is_refused(enter):
    module, _ = student(enter)
    entity = enter("other", network(), task=TASK, validation=COMMON)
    tool = trainer(KUberCallback(entity))
    with pytest.raises(kuber.errors.SettingsError, match="not the one that is trained"):
        tool.fit(module, loader(points(20, 1)))
    with pytest.raises(kuber.errors.SettingsError, match="at least one epoch"):
        KUberCallback(entity, every=0)


class Named(Module):
    """A classifier of batches that are dicts."""

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch["image"]), batch["label"])


class Renamed(nn.Module):
    """A network whose input has the name that the batch gives it."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, image):
        return self.net(image)


def named(data):
    return DataLoader([{"image": x, "label": y} for x, y in zip(*data, strict=True)], batch_size=10)


@pytest.mark.parametrize("teachers", [False, True])
def test_a_batch_that_the_model_does_not_take_is_refused_at_once_teachers_or_not(enter, request, teachers):
    if teachers:
        request.getfixturevalue("strong")
    module = Named()
    entity = enter("student", module.net, task=TASK, validation=COMMON)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for xy in (None, lambda batch: batch["x"], lambda batch: batch["image"], lambda batch: (batch["image"], None)):
        with pytest.raises(kuber.errors.SettingsError, match="xy=") as caught:
            trainer(KUberCallback(entity, xy=xy), epochs=1).fit(module, named(points(40, 1)))
        assert "\n" not in caught.value.message
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    trainer(KUberCallback(entity, xy=lambda batch: (batch["image"], batch["label"])), epochs=1).fit(
        module, named(points(40, 1))
    )


def test_a_batch_of_names_that_the_model_takes_needs_no_xy(enter, tmp_path):
    publish_teacher(enter, Renamed())
    module = Named()
    module.net = Renamed()
    entity = enter("student", module.net, task=TASK, validation=COMMON)
    trainer(KUberCallback(entity), epochs=1).fit(module, named(points(40, 1)))
    assert events(tmp_path / "student", "absorbed")


@pytest.mark.parametrize("labels", [lambda y: y + 1, lambda y: y.float(), lambda y: y[:5]])
def test_labels_that_do_not_fit_are_refused_in_the_first_batch(enter, labels):
    module, entity = student(enter)
    callback = KUberCallback(entity, xy=lambda batch: (batch[0], labels(batch[1])))
    with pytest.raises(kuber.errors.SettingsError, match=r"labels .*xy="):
        trainer(callback, epochs=1).fit(module, loader(points(40, 1)))


class Mixup(Module):
    """Train on smoothed labels."""

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), soft(y))


def soft(y):
    return nn.functional.one_hot(y, 3) * 0.7 + 0.1


def test_smoothed_labels_have_teachers(enter, strong, tmp_path, caplog):
    module = Mixup()
    entity = enter("student", module.net, task=TASK, validation=COMMON)
    with caplog.at_level(logging.WARNING, logger="kuber"):
        callback = KUberCallback(entity, xy=lambda batch: (batch[0], soft(batch[1])))
        trainer(callback, epochs=1).fit(module, loader(points(40, 1)))
    assert events(tmp_path / "student", "absorbed")
    assert not caplog.records


class Rich(Module):
    """A classifier with everything that a careless callback disturbs: statistics, dropout, a frozen part."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.net[1].eval()

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.02)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def validation_step(self, batch, index):
        self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))


@pytest.mark.parametrize("more", [{}, {"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_without_teachers_the_training_is_the_same_to_the_last_bit(enter, more, compiled):
    weights = []
    for name in ("alone", "student"):
        torch.manual_seed(3)
        module = Rich()
        if compiled:
            module.net = torch.compile(module.net, backend="eager")
        callbacks = [lightning.callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=2)]
        if name == "student":
            entity = enter(name, module.net, task=TASK, validation=COMMON)
            callbacks.append(KUberCallback(entity))
        shuffled = DataLoader(TensorDataset(*points(60, 1)), batch_size=20, shuffle=True)
        tool = trainer(*callbacks, epochs=4, **more)
        tool.fit(module, shuffled, loader(points(20, 2)))
        weights.append([*module.state_dict().values(), torch.rand(1)])
        assert [
            part.training for part in module.net.modules() if part.training == isinstance(part, nn.BatchNorm1d)
        ] == []
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_nothing_that_fails_later_ends_the_training(enter, strong, caplog):
    module, entity = student(enter)
    callback, calls, step = KUberCallback(entity), [], entity.step

    def failing(optimizer):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the hub burns\nand falls")
        return step(optimizer)

    entity.step = failing

    def only_once(module, *_):
        module._forward_hooks.clear()
        raise ValueError("a second forward pass is one too many")

    class Late(lightning.Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.current_epoch == 2 and callback.teachers:
                callback.entity.model[0].register_forward_hook(only_once)

    with caplog.at_level(logging.WARNING, logger="kuber"):
        trainer(callback, Late(), epochs=3).fit(module, loader(points(40, 1)))
    assert len(calls) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "student trains on without teachers: the hub burns",
        "student trains on without teachers: a second forward pass is one too many",
    ]


def test_a_wrong_setting_is_raised_in_the_first_phase_and_not_later(enter, caplog):
    module, entity = student(enter)

    def refuse(optimizer):
        raise kuber.errors.SettingsError("invitation has expired.")

    entity.step = refuse
    with pytest.raises(kuber.errors.SettingsError, match="invitation"):
        trainer(KUberCallback(entity), epochs=1).fit(module, loader(points(20, 1)))
    del entity.step

    class Later(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            entity.step = refuse

    with caplog.at_level(logging.WARNING, logger="kuber"):
        trainer(KUberCallback(entity), Later(), epochs=2).fit(module, loader(points(20, 1)))
    assert {record.getMessage() for record in caplog.records} == {
        "student trains on without teachers: invitation has expired"
    }


def test_a_training_that_fails_releases_the_teachers_and_can_begin_again(enter, strong):
    module, entity = student(enter)
    callback = KUberCallback(entity)

    class Stop(lightning.Callback):
        def on_train_batch_end(self, *_):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer(callback, Stop(), epochs=1).fit(module, loader(points(20, 1)))
    assert callback.teachers is None
    assert callback._batch is None
    trainer(callback, epochs=1).fit(module, loader(points(20, 1)))
    assert entity.round == 3


def test_a_logger_that_fails_is_a_warning(enter, caplog):
    from lightning.pytorch.loggers.logger import DummyLogger

    class Away(DummyLogger):
        def log_metrics(self, metrics, step=None):
            if list(metrics) == ["kuber/accuracy"]:  # logged directly
                raise ConnectionError("no route to the tracking server")

    module, entity = student(enter)
    with caplog.at_level(logging.WARNING, logger="kuber"):
        trainer(KUberCallback(entity), epochs=1, logger=Away(), log_every_n_steps=10).fit(
            module, loader(points(20, 1))
        )
    assert "Away does not log kuber/accuracy" in caplog.text
