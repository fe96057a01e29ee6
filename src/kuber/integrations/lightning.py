"""A callback for Lightning trainers that exchanges knowledge between epochs."""

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
    """Return samples and labels of a batch that begins with them."""
    return batch[0], batch[1]


class KUberCallback(Callback):
    """Call an entity between epochs, and add the gradient of its teachers' loss to that of each batch.

    The module's `training_step` needs no change.
    """

    def __init__(
        self,
        entity: Entity,
        *,
        every: int = 1,
        weight: float = 1.0,
        xy: Callable[[Any], tuple[Tensor, Tensor]] = first_two,
    ) -> None:
        """Make phases of `every` epochs; `weight` multiplies the teachers' loss, which is added to the module's.

        The entity's model is the LightningModule or a part of it; it returns logits, shape (batch, classes), for `x`.
        `xy` returns `x` and the labels, shape (batch,), of a batch. Raises SettingsError when `every` is below 1.
        """
        check_every(every)
        self.entity = entity
        self.teachers: Teachers | None = None  # of the current phase
        self._every = every
        self._weight = weight
        self._xy = xy
        self._batch: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise SettingsError when the teachers' loss cannot be added in this trainer."""
        if not pl_module.automatic_optimization:
            raise SettingsError(
                "KUberCallback needs automatic optimisation; otherwise call entity.step in your own loop."
            )
        if len(trainer.optimizers) != 1:
            raise SettingsError(f"KUberCallback needs one optimizer, but this module has {len(trainer.optimizers)}.")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise SettingsError(
                "KUberCallback does not support a gradient scaler; use precision bf16-mixed or 32-true, not 16-mixed."
            )
        if trainer.world_size > 1:
            raise SettingsError("KUberCallback supports one process only; train on one device.")
        check_same(self.entity, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep or undo the phase that ends, publish, and discover teachers for the next one."""
        if trainer.current_epoch % self._every:
            return
        self.teachers = next_phase(self.entity, pl_module, trainer.optimizers[0])
        for name, value in self._metrics().items():
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch for `on_after_backward`, which does not get it."""
        self._batch = batch

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the gradient of the teachers' loss, before clipping."""
        if not self.teachers:
            return
        x, y = self._xy(self._batch)
        with trainer.precision_plugin.forward_context():
            loss = self._weight * self.teachers.loss(self.entity.model(x), x, y)
        (loss / trainer.accumulate_grad_batches).backward()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep or undo the last phase, publish, and log the accuracy directly to the loggers."""
        next_phase(self.entity, pl_module, trainer.optimizers[0])
        self.teachers = self._batch = None
        accuracy = self._metrics()["kuber/accuracy"]
        for logger in trainer.loggers:
            logger.log_metrics({"kuber/accuracy": accuracy}, step=trainer.global_step)

    def _metrics(self) -> dict[str, float]:
        evaluation = self.entity.evaluation
        assert evaluation is not None
        return {"kuber/teachers": float(len(self.teachers or ())), "kuber/accuracy": evaluation.accuracy}
