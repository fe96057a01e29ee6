"""An entity in a Lightning trainer, with a hub in memory."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kuber
from kuber.entity.state.event_log import FILE_NAME, read_events

lightning = pytest.importorskip("lightning.pytorch")
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


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_is_that_of_both_losses(enter, strong, accumulate):
    module, entity = student(enter)
    kept, callback, batches = Gradients(), KUberCallback(entity, weight=0.5), []
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data = points(20 * accumulate, 1, (1, 2))

    class Keep(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batches.append((batch, callback.teachers))

    tool = trainer(callback, Keep(), kept, epochs=1, accumulate_grad_batches=accumulate)
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


def test_xy_returns_samples_and_labels_of_other_batches(enter, strong, tmp_path):
    class Named(Module):
        def training_step(self, batch, index):
            return super().training_step((batch["x"], batch["y"]), index)

    torch.manual_seed(3)
    module = Named()
    entity = enter("student", module.net, task=TASK, validation=COMMON)
    rows = [{"x": x, "y": y} for x, y in zip(*points(40, 1), strict=True)]
    callback = KUberCallback(entity, xy=lambda batch: (batch["x"], batch["y"]))
    trainer(callback, epochs=1).fit(module, DataLoader(rows, batch_size=10))
    assert events(tmp_path / "student", "absorbed")


def manual(module, tool):
    module.automatic_optimization = False


def two_optimizers(module, tool):
    tool.strategy.optimizers = [*tool.optimizers, *tool.optimizers]


def scaler(module, tool):
    tool.strategy.precision_plugin.scaler = object()


def two_processes(module, tool):
    tool.strategy.world_size = 2


REFUSED = [
    (manual, "automatic"),
    (two_optimizers, "one optimizer"),
    (scaler, "bf16-mixed"),
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
