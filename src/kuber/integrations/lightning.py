"""A callback for Lightning trainers that exchanges knowledge between epochs."""

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError, first_line
from kuber.integrations.phase_boundary import check_batch, check_every, check_same, next_phase
from kuber.learning.model_call import Inputs, call_model, split_batch
from kuber.learning.teachers import Teachers

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    raise ImportError("Lightning is not installed: pip install 'kuber[lightning]'.") from None

log = logging.getLogger("kuber")

_ADVICE = "Give KUberCallback(xy=...), a function of a batch that returns the model's inputs and the labels."


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
        xy: Callable[[Any], tuple[Inputs, Tensor]] | None = None,
    ) -> None:
        """Make phases of `every` epochs; `weight` multiplies the teachers' loss, which is added to the module's.

        The entity's model is the LightningModule or a part of it; it returns logits, shape (batch, classes), for `x`.
        `xy` returns `x` (a tensor, or a tuple or dict of them) and the labels of a batch. By default a batch is a
        pair (x, y), or has the labels under "labels" or "label"; an entity with `collate` splits batches by that.
        Raises SettingsError when `every` is below 1.
        """
        check_every(every)
        self.entity = entity
        self.teachers: Teachers | None = None  # of the current phase
        self._every = every
        self._weight = weight
        self._xy = xy or entity.collate
        self._batch: Any = None
        self._started = self._checked = False  # whether a phase has begun, and a batch been checked

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise SettingsError when the teachers' loss cannot be added in this trainer."""
        if not pl_module.automatic_optimization:
            raise SettingsError(
                "KUberCallback needs automatic optimisation; otherwise call entity.step in your own loop."
            )
        if len(trainer.optimizers) != 1:
            raise SettingsError(f"KUberCallback needs one optimizer, but this module has {len(trainer.optimizers)}.")
        if trainer.world_size > 1:
            raise SettingsError("KUberCallback supports one process only; train on one device.")
        check_same(self.entity, pl_module)
        self._started = self._checked = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep or undo the phase that ends, publish, and discover teachers for the next one."""
        if trainer.current_epoch % self._every:
            return
        self.teachers = next_phase(self.entity, trainer.optimizers[0], first=not self._started)
        self._started = True
        for name, value in self._metrics().items():
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch for `on_after_backward`, which does not get it.

        Raises SettingsError when the first batch cannot be used, teachers or not.
        """
        if not self._checked:
            with trainer.precision_plugin.forward_context():
                check_batch(self.entity, *self._split(batch), advice=_ADVICE)
            self._checked = True
        self._batch = batch if self.teachers else None

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the gradient of the teachers' loss, before clipping; a gradient scaler scales it like the module's."""
        if not self.teachers or self._batch is None:
            return
        try:
            x, y = self._split(self._batch)
            with trainer.precision_plugin.forward_context():
                loss = self._weight * self.teachers.loss(call_model(self.entity.model, x), x, y)
            if not loss.requires_grad:  # no teacher is left, or none can use this batch
                return
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            loss = loss / trainer.accumulate_grad_batches
            (loss if scaler is None else scaler.scale(loss)).backward()
        except Exception as error:  # noqa: BLE001 - nothing ends the owner's training
            log.warning("%s trains on without teachers: %s", self.entity.name, first_line(error))
            self.teachers = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep or undo the last phase, publish, and log the accuracy directly to the loggers."""
        next_phase(self.entity, trainer.optimizers[0], first=False)
        self._release()
        for name, value in self._metrics().items():
            if name == "kuber/teachers":
                continue
            for logger in trainer.loggers:
                try:
                    logger.log_metrics({name: value}, step=trainer.global_step)
                except Exception as error:  # noqa: BLE001 - such as an unreachable tracking server
                    log.warning("%s does not log %s: %s", type(logger).__name__, name, first_line(error))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release the teachers and the batch; the next training decides about this phase."""
        self._release()

    def _release(self) -> None:
        self.teachers = self._batch = None

    def _split(self, batch: Any) -> tuple[Inputs, Tensor]:
        """Return the inputs and labels of a batch. Raises SettingsError naming `xy` for one of another form."""
        try:
            return split_batch(batch, self._xy)
        except Exception as error:  # noqa: BLE001 - `xy` may raise anything
            reason = error.message if isinstance(error, SettingsError) else f"xy raises {first_line(error)!r}."
            reason = reason.replace("; else pass collate=", "").replace("collate must", "xy must")
            raise SettingsError(f"The teachers cannot use a batch: {reason} {_ADVICE}") from None

    def _metrics(self) -> dict[str, float]:
        evaluation = self.entity.evaluation
        if evaluation is None:
            return {}
        return {"kuber/teachers": float(len(self.teachers or ())), "kuber/accuracy": evaluation.accuracy}
