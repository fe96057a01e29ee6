"""KUber in a Hugging Face trainer: text classification models as an entity's, and a callback between epochs."""

import logging
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError
from kuber.integrations.phase_boundary import check_every, check_same, next_phase
from kuber.learning.teachers import Teachers

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError:
    raise ImportError("transformers is not installed: pip install 'kuber[transformers]'.") from None

log = logging.getLogger("kuber")


class Logits(nn.Module):
    """A Hugging Face classification model that takes token ids and gives logits, as an entity's model does."""

    def __init__(self, model: nn.Module, *, pad: int | None = None) -> None:
        """`pad` is the id of padding, by default the one in the model's configuration; SettingsError without one."""
        super().__init__()
        told = getattr(getattr(model, "config", None), "pad_token_id", None) if pad is None else pad
        if told is None:
            raise SettingsError("The model's configuration has no pad_token_id; give Logits the id as `pad`.")
        self.model = model
        self.pad = int(told)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, shape (batch, classes), of int64 token ids, shape (batch, length)."""
        said: Tensor = self.model(input_ids=ids, attention_mask=(ids != self.pad).long()).logits
        return said

    def fitted(self, ids: Tensor, length: int) -> Tensor:
        """The ids padded or cut at their end to this length, which graphs and task are made for."""
        return F.pad(ids, (0, length - ids.shape[1]), value=self.pad)


class KUberTrainerCallback(TrainerCallback):
    """Lets an entity decide between epochs, and adds what its teachers say to the loss that the model gives."""

    def __init__(self, entity: Entity, *, every: int = 1, weight: float = 1.0) -> None:
        """A phase is `every` epochs; `weight` is that of the teachers' loss beside the model's own.

        The entity's model is `Logits` around the trainer's, and samples of its task have shape (length,). Raises
        SettingsError when they are not.
        """
        check_every(every)
        if not isinstance(entity.model, Logits):
            raise SettingsError("An entity in a Hugging Face trainer has a model of Logits(model).")
        if len(entity.task.input_shape) != 1:
            raise SettingsError(f"Samples of token ids have shape (length,), not {entity.task.input_shape}.")
        self.entity = entity
        self.teachers: Teachers | None = None  # of the phase that is under way
        self._logits = entity.model
        self._every = every
        self._weight = weight
        self._hook: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen to the model. Raises SettingsError when the trainer's loss is none that teachers can be added to."""
        if args.world_size > 1 or args.n_gpu > 1:
            raise SettingsError("KUberCallback trains on one device; an entity on several devices has no callback.")
        if args.label_smoothing_factor:
            raise SettingsError("KUberCallback adds to the model's own loss, which label smoothing does not use.")
        check_same(self.entity, kwargs["model"])
        self._let_go()
        self.teachers = None

        # A plain function: the entity copies the model, and a method's copy would copy the entity too.
        def hear(module: nn.Module, positional: Any, named: dict[str, Any], output: Any) -> None:
            if module is self._logits.model and module.training and self.teachers:
                self._add(self.teachers, named, output)

        self._hook = self._logits.model.register_forward_hook(hear, with_kwargs=True)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Judge the phase that ends, publish, and seek teachers for the one that begins."""
        if round(state.epoch or 0) % self._every == 0:
            self._warn()
            self.teachers = next_phase(self.entity, kwargs["model"], kwargs["optimizer"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let go of the model, and judge and publish the last phase."""
        self._let_go()
        self._warn()
        next_phase(self.entity, kwargs["model"], kwargs["optimizer"])
        self.teachers = None

    def _add(self, teachers: Teachers, named: dict[str, Any], output: Any) -> None:
        ids, labels = named.get("input_ids"), named.get("labels")
        if ids is None or labels is None or getattr(output, "loss", None) is None:
            return
        said = output.logits.float()
        fitted = self._logits.fitted(ids, self.entity.task.input_shape[0])
        loss = self._weight * teachers.loss(said, fitted, labels.view(-1))
        whole = named.get("num_items_in_batch")  # samples of all the batches of one step; then nobody divides by them
        output.loss = output.loss + (loss if whole is None else loss * len(said) / whole)

    def _warn(self) -> None:
        if self.teachers and not self.teachers.used:
            log.warning("%s heard none of its teachers: the trainer uses no loss of the model.", self.entity.name)

    def _let_go(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
