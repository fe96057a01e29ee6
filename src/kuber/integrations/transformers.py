"""A callback for Hugging Face trainers of text classifiers that exchanges knowledge between epochs."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.entity.custom_loop import Entity
from kuber.errors import SettingsError, first_line
from kuber.integrations.phase_boundary import check_every, check_same, next_phase
from kuber.learning.batch_check import BatchCheck
from kuber.learning.model_call import LABEL_KEYS, Inputs
from kuber.learning.teachers import Teachers
from kuber.learning.wrappers import is_compiled, unwrap

try:
    from transformers import TrainerCallback, TrainerState, TrainingArguments
except ModuleNotFoundError:
    raise ImportError("transformers is not installed: pip install 'kuber[transformers]'.") from None

log = logging.getLogger("kuber")

_OTHER_TASKS = (
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForCausalLM",
    "ForMaskedLM",
    "ForPreTraining",
    "ForConditionalGeneration",
    "ForMultipleChoice",
    "ForSemanticSegmentation",
    "ForObjectDetection",
    "LMHeadModel",
)


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
        output = self.model(input_ids=ids, attention_mask=(ids != self.pad).long())
        logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
        return logits

    def pad_or_cut(self, ids: Tensor, length: int) -> Tensor:
        """Return the ids padded or cut at the end to this length, that of the task's samples."""
        return F.pad(ids, (0, length - ids.shape[1]), value=self.pad)


class KUberTrainerCallback(TrainerCallback):
    """Call an entity between epochs, and add its teachers' loss to the model's loss."""

    def __init__(self, entity: Entity, *, every: int = 1, weight: float = 1.0) -> None:
        """Make phases of `every` epochs; `weight` multiplies the teachers' loss, which is added to the model's.

        The entity's model is the trainer's model, and its validation data have the trainer's batches; or it is
        `Logits` of that model, and samples of its task have shape (length,). Raises SettingsError otherwise.
        """
        check_every(every)
        self.entity = entity
        self.teachers: Teachers | None = None  # of the current phase
        self._logits = entity.model if isinstance(entity.model, Logits) else None
        self._model = unwrap(entity.model if self._logits is None else self._logits.model)
        self._every = every
        self._weight = weight
        self._hook: Any = None
        self._started = self._checked = False  # whether a phase has begun, and a batch been checked
        _check_task(entity, self._model, tokens=self._logits is not None)

    def on_train_begin(self, args: TrainingArguments, *_: Any, **kwargs: Any) -> None:
        """Raise SettingsError when the teachers' loss cannot be added in this trainer."""
        if args.world_size > 1 or args.n_gpu > 1:
            raise SettingsError("KUberTrainerCallback supports one device only; train on one device.")
        if args.label_smoothing_factor:
            raise SettingsError(
                "KUberTrainerCallback adds to the model's own loss, which label_smoothing_factor replaces; set it to "
                "0."
            )
        check_same(self.entity, kwargs["model"])
        for hook in list(self._model._forward_hooks.values()):  # of a training that failed
            if isinstance(hook, LossHook):
                hook.release()
        self._started = self._checked = False
        if args.torch_compile or is_compiled(self.entity.model):
            self._add_hook()  # before the model is compiled, which does not see a later one

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Keep or undo the phase that ends, publish, and discover teachers for the next one."""
        if round(state.epoch or 0) % self._every == 0:
            self._next_phase(kwargs["optimizer"])

    def on_step_begin(self, args: TrainingArguments, *_: Any, **kwargs: Any) -> None:
        """Add a hook to the model for the first batch and for those that have teachers, and else none."""
        if self.teachers or not self._checked:
            self._add_hook()
        elif not args.torch_compile and not is_compiled(self.entity.model):
            self._remove_hook()

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        """Remove the hook, keep or undo the last phase, and publish."""
        self._remove_hook()
        self._next_phase(kwargs["optimizer"])
        self._release()

    def _next_phase(self, optimizer: Any) -> None:
        self._warn_if_unused()
        self.teachers = next_phase(self.entity, optimizer, first=not self._started)
        self._started = True

    def add_loss(self, named: dict[str, Any], output: Any) -> Any:
        """Return the model's output for these arguments with the teachers' loss added to its own.

        Raises SettingsError when the first batch cannot be used, teachers or not; nothing that happens later ends the
        training.
        """
        labels, own = named.get("labels"), _loss_in(output)
        if labels is None or own is None or not self._model.training:
            return output
        try:
            inputs = self._inputs(named)
            if not self._checked:
                _check_batch(output, inputs, labels, classes=self.entity.task.classes)
                self._checked = True
            if not self.teachers:
                return output
            return _with_loss(output, own + self._added(output, inputs, labels, named.get("num_items_in_batch")))
        except Exception as error:
            if not self._checked and isinstance(error, SettingsError):
                self._release()
                raise
            self._checked = True
            log.warning("%s trains on without teachers: %s", self.entity.name, first_line(error))
            self.teachers = None
            return output

    def _added(self, output: Any, inputs: Inputs, labels: Tensor, total: Any) -> Tensor:
        assert self.teachers is not None
        loss = self._weight * self.teachers.loss(_logits_in(output), inputs, labels)
        # Samples of all batches of a step; with it the trainer does not divide by the number of batches.
        return loss if total is None else loss * len(labels) / total

    def _inputs(self, named: dict[str, Any]) -> Inputs:
        """Return what teachers take: the arguments that are tensors, or the token ids in the task's length."""
        if self._logits is None:
            left_out = (*LABEL_KEYS, "num_items_in_batch")
            return {
                name: value for name, value in named.items() if isinstance(value, Tensor) and name not in left_out
            }
        ids = named.get("input_ids")
        if not isinstance(ids, Tensor):
            raise SettingsError("The batches have no input_ids, which Logits(model) takes.")
        return self._logits.pad_or_cut(ids, self.entity.task.input_shape[0])

    def _warn_if_unused(self) -> None:
        if self.teachers and not self.teachers.used:
            log.warning(
                "%s used none of its teachers: the trainer does not use the loss of the model.", self.entity.name
            )

    def _add_hook(self) -> None:
        if self._hook is None:
            self._hook = self._model.register_forward_hook(LossHook(self), with_kwargs=True)

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _release(self) -> None:
        self._remove_hook()
        self.teachers = None


class LossHook:
    """Forward hook of the trained model; in a copy of the model, such as a pickled one, it does nothing."""

    def __init__(self, callback: KUberTrainerCallback | None = None) -> None:
        self._callback = callback

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, module: nn.Module, positional: Any, named: dict[str, Any], output: Any) -> Any:
        """Return the output to use in place of the model's."""
        return output if self._callback is None else self._callback.add_loss(named, output)

    def release(self) -> None:
        """Remove the hook of a training that has ended."""
        if self._callback is not None:
            self._callback._release()

    def __reduce__(self) -> tuple[type["LossHook"], tuple[()]]:
        return LossHook, ()


def _check_task(entity: Entity, model: nn.Module, *, tokens: bool) -> None:
    """Raise SettingsError unless the model classifies whole samples, with one label for each."""
    if tokens and len(entity.task.input_shape) != 1:
        raise SettingsError(
            f"The task needs samples of token ids, shape (length,), not {entity.task.input_shape}, for Logits(model)."
        )
    config = getattr(model, "config", None)
    if config is None:
        raise SettingsError(
            "Give the entity the Hugging Face trainer's model, or Logits(model); its model is a "
            f"{type(model).__name__}."
        )
    kind = next((kind for kind in _OTHER_TASKS if kind in type(model).__name__), None)
    if kind is not None:
        raise SettingsError(
            f"KUberTrainerCallback needs a model that gives each sample one label; {type(model).__name__} does not."
        )
    problem = getattr(config, "problem_type", None)
    if problem not in (None, "single_label_classification"):
        raise SettingsError(
            f"KUberTrainerCallback needs one label for each sample; the model's problem_type is {problem}."
        )


def _check_batch(output: Any, inputs: Inputs, labels: Tensor, *, classes: int) -> None:
    """Raise SettingsError naming `labels` or the inputs unless the teachers can use a batch of the trainer."""
    if labels.is_floating_point():
        raise SettingsError(
            "KUberTrainerCallback needs one label for each sample; labels given as floats have a loss for several."
        )
    BatchCheck().batch(_logits_in(output), inputs, labels, classes=classes)


def _loss_in(output: Any) -> Tensor | None:
    loss = output[0] if isinstance(output, tuple) and output else getattr(output, "loss", None)
    return loss if isinstance(loss, Tensor) and loss.dim() == 0 else None


def _logits_in(output: Any) -> Tensor:
    logits: Tensor = (output[1] if isinstance(output, tuple) else output.logits).float()
    return logits


def _with_loss(output: Any, loss: Tensor) -> Any:
    if isinstance(output, tuple):
        return loss, *output[1:]
    output.loss = loss
    return output
