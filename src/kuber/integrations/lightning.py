"""KUber in a Lightning trainer: a callback that exchanges knowledge between epochs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError
from kuber.integrations.phase_boundary import check_every, check_same, next_phase
from kuber.learning.teachers import Teachers

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    raise ImportError("Lightning is not installed: pip install 'kuber[lightning]'.") from None


def first_two(batch: Any) -> tuple[Tensor, Tensor]:
    """Samples and labels of a batch that begins with them."""
    return batch[0], batch[1]


class KUberCallback(Callback):
    """Lets an entity decide between epochs, and adds what its teachers say to the gradient of each batch.

    The module's own `training_step` stays as it is.
    """

    def __init__(
        self,
        entity: Entity,
        *,
        every: int = 1,
        weight: float = 1.0,
        xy: Callable[[Any], tuple[Tensor, Tensor]] = first_two,
    ) -> None:
        """A phase is `every` epochs; `weight` is that of the teachers' loss beside the module's own.

        The entity's model is the LightningModule or a part of it, takes `x` and gives logits, shape (batch, classes).
        `xy` takes `x` and the labels, shape (batch,), out of a batch. Raises SettingsError when `every` is below 1.
        """
        check_every(every)
        self.entity = entity
        self.teachers: Teachers | None = None  # of the phase that is under way
        self._every = every
        self._weight = weight
        self._xy = xy
        self._batch: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises SettingsError when the trainer works in a way that teachers cannot be added to."""
        if not pl_module.automatic_optimization:
            raise SettingsError("KUberCallback needs automatic optimisation; call entity.step in a loop of your own.")
        if len(trainer.optimizers) != 1:
            raise SettingsError(f"KUberCallback needs one optimizer, and this module has {len(trainer.optimizers)}.")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise SettingsError("KUberCallback cannot scale gradients; use bf16-mixed or 32-bit, not 16-mixed.")
        if trainer.world_size > 1:
            raise SettingsError("KUberCallback trains in one process; an entity on several devices has no callback.")
        check_same(self.entity, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the phase that ends, publish, and seek teachers for the one that begins."""
        if trainer.current_epoch % self._every:
            return
        self.teachers = next_phase(self.entity, pl_module, trainer.optimizers[0])
        for name, value in self._standing().items():
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the batch, as no later hook is given it in time."""
        self._batch = batch

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the gradient of the teachers' loss, before gradients are clipped."""
        if not self.teachers:
            return
        x, y = self._xy(self._batch)
        with trainer.precision_plugin.forward_context():
            loss = self._weight * self.teachers.loss(self.entity.model(x), x, y)
        (loss / trainer.accumulate_grad_batches).backward()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge and publish the last phase; what is logged here goes straight to the loggers."""
        next_phase(self.entity, pl_module, trainer.optimizers[0])
        self.teachers = self._batch = None
        accuracy = self._standing()["kuber/accuracy"]
        for logger in trainer.loggers:
            logger.log_metrics({"kuber/accuracy": accuracy}, step=trainer.global_step)

    def _standing(self) -> dict[str, float]:
        own = self.entity.evaluation
        assert own is not None
        return {"kuber/teachers": float(len(self.teachers or ())), "kuber/accuracy": own.accuracy}
