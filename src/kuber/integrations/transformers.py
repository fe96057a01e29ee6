"""A callback for Hugging Face trainers of text classifiers that exchanges knowledge between epochs."""

import logging
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError
from kuber.integrations.phase_boundary import check_every, check_same, next_phase
from kuber.learning.teachers import Teachers

try:
    from transformers import TrainerCallback, TrainerState, TrainingArguments
except ModuleNotFoundError:
    raise ImportError("transformers is not installed: pip install 'kuber[transformers]'.") from None

log = logging.getLogger("kuber")


class Logits(nn.Module):
    """Adapter that makes a Hugging Face classification model an entity's model: token ids in, logits out."""

    def __init__(self, model: nn.Module, *, pad: int | None = None) -> None:
        """Wrap a model; `pad` is the padding id, by default the configured one. Raises SettingsError without one."""
        super().__init__()
        pad = getattr(getattr(model, "config", None), "pad_token_id", None) if pad is None else pad
        if pad is None:
            raise SettingsError("The model's configuration has no pad_token_id; pass it as Logits(model, pad=...).")
        self.model = model
        self.pad = int(pad)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, shape (batch, classes), for int64 token ids, shape (batch, length)."""
        logits: Tensor = self.model(input_ids=ids, attention_mask=(ids != self.pad).long()).logits
        return logits

    def pad_or_cut(self, ids: Tensor, length: int) -> Tensor:
        """Return the ids padded or cut at the end to this length, that of the task's samples."""
        return F.pad(ids, (0, length - ids.shape[1]), value=self.pad)


class KUberTrainerCallback(TrainerCallback):
    """Call an entity between epochs, and add its teachers' loss to the model's loss."""

    def __init__(self, entity: Entity, *, every: int = 1, weight: float = 1.0) -> None:
        """Make phases of `every` epochs; `weight` multiplies the teachers' loss, which is added to the model's.

        The entity's model must be `Logits` of the trainer's model, and samples of its task have shape (length,).
        Raises SettingsError otherwise.
        """
        check_every(every)
        if not isinstance(entity.model, Logits):
            raise SettingsError(
                "Give the entity the model Logits(model), where model is that of the Hugging Face trainer."
            )
        if len(entity.task.input_shape) != 1:
            raise SettingsError(
                f"The task needs samples of token ids, shape (length,), not {entity.task.input_shape}."
            )
        self.entity = entity
        self.teachers: Teachers | None = None  # of the current phase
        self._logits = entity.model
        self._every = every
        self._weight = weight
        self._hook: Any = None

    def on_train_begin(self, args: TrainingArguments, *_: Any, **kwargs: Any) -> None:
        """Add hooks to the model. Raises SettingsError when the teachers' loss cannot be added in this trainer."""
        if args.world_size > 1 or args.n_gpu > 1:
            raise SettingsError("KUberTrainerCallback supports one device only; train on one device.")
        if args.label_smoothing_factor:
            raise SettingsError(
                "KUberTrainerCallback adds to the model's own loss, which label smoothing replaces; set it to 0."
            )
        check_same(self.entity, kwargs["model"])
        self._remove_hook()
        self.teachers = None

        # Not a method: the entity deep-copies the model, which would copy a bound method's entity too.
        def hook(module: nn.Module, positional: Any, named: dict[str, Any], output: Any) -> None:
            if module is self._logits.model and module.training and self.teachers:
                self._add_loss(self.teachers, named, output)

        self._hook = self._logits.model.register_forward_hook(hook, with_kwargs=True)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Keep or undo the phase that ends, publish, and discover teachers for the next one."""
        if round(state.epoch or 0) % self._every == 0:
            self._warn_if_unused()
            self.teachers = next_phase(self.entity, kwargs["model"], kwargs["optimizer"])

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        """Remove the hook, keep or undo the last phase, and publish."""
        self._remove_hook()
        self._warn_if_unused()
        next_phase(self.entity, kwargs["model"], kwargs["optimizer"])
        self.teachers = None

    def _add_loss(self, teachers: Teachers, named: dict[str, Any], output: Any) -> None:
        ids, labels = named.get("input_ids"), named.get("labels")
        if ids is None or labels is None or getattr(output, "loss", None) is None:
            return
        logits = output.logits.float()
        x = self._logits.pad_or_cut(ids, self.entity.task.input_shape[0])
        loss = self._weight * teachers.loss(logits, x, labels.view(-1))
        # Samples of all batches of a step; with it the trainer does not divide by the number of batches.
        total = named.get("num_items_in_batch")
        output.loss = output.loss + (loss if total is None else loss * len(logits) / total)

    def _warn_if_unused(self) -> None:
        if self.teachers and not self.teachers.used:
            log.warning(
                "%s used none of its teachers: the trainer does not use the loss of the model.", self.entity.name
            )

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
