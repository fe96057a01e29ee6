"""Teachers: frozen models of other entities, combined into an ensemble over the student's labels."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.domain.significance import advantages
from kuber.errors import (
    CorruptKnowledgeError,
    IncompatibleKnowledgeError,
    KnowledgeError,
    SettingsError,
    TimeLimitError,
    first_line,
)
from kuber.learning.batch_check import BatchCheck, model_inputs
from kuber.learning.ensembling import ensemble_log_probs, guidance_shares, guide_loss, surer_teacher_loss
from kuber.learning.evaluation import evaluation_mode, has_valid_logits
from kuber.learning.labels import IGNORED
from kuber.learning.model_call import (
    Inputs,
    as_floating,
    batch_size,
    call_model,
    floating_dtype,
    logits_from,
    tensors_in,
    to_device,
)
from kuber.learning.onnx_model import OnnxModel

log = logging.getLogger("kuber")


class LabelMapped(nn.Module):
    """A network with its classes in the student's order; the logits of unknown classes are minus infinity."""

    def __init__(self, network: nn.Module, *, theirs: Sequence[str], ours: Sequence[str]) -> None:
        """Map the outputs for the labels `theirs` to the places of the same labels in `ours`."""
        super().__init__()
        self.network = network
        shared = [label for label in ours if label in theirs]
        self._ours = [ours.index(label) for label in shared]
        self._theirs = [theirs.index(label) for label in shared]
        self._classes, self._known = len(ours), len(theirs)

    def forward(self, *inputs: Any, **named: Tensor) -> Tensor:
        """Return logits, shape (batch, our classes), for what the network takes."""
        logits = logits_from(self.network(*inputs, **named), classes=self._known)
        mapped = logits.new_full((len(logits), self._classes), -torch.inf)
        mapped[:, self._ours] = logits[:, self._theirs]
        return mapped


def graph_of(network: nn.Module) -> OnnxModel | None:
    """Return the graph that a teacher's network is, if it is one; not one that is a part of an owner's network."""
    inner = network.network if isinstance(network, LabelMapped) else network
    return inner if isinstance(inner, OnnxModel) else None


@dataclass(frozen=True, kw_only=True, repr=False)
class Teacher:
    """One teacher: its record, our own evaluation of it, and its network, which returns logits over our labels.

    `shift`, shape (classes,), is added to the logits: `kuber.learning.teacher_priors.answer_shift`.
    """

    knowledge: Knowledge
    evaluation: Evaluation
    network: nn.Module
    name: str | None = None  # of the entity that published it
    shift: Tensor | None = None  # takes out the teacher's prior

    def __str__(self) -> str:
        publisher = self.name or self.knowledge.entity
        return f"{publisher} r{self.knowledge.round} ({100 * self.evaluation.accuracy:.0f} %)"

    def __repr__(self) -> str:
        return f"<Teacher {self}>"


class Teachers(Sequence[Teacher]):
    """The teachers of a phase; empty, and so false, when there are none. Call it to get the ensemble's logits."""

    def __init__(
        self,
        teachers: Sequence[Teacher] = (),
        *,
        classes: int,
        temperature: float = 2.0,
        sharpness: float = 2.0,
        weight: float = 1.0,
        own: Evaluation | None = None,
        advantage: float = 0.1,
        prior: Tensor | None = None,
        refuse: Callable[..., None] = lambda knowledge, reason, **_: None,
        check: BatchCheck | None = None,
    ) -> None:
        """Combine teachers; `temperature` and `sharpness` as in `kuber.learning.ensembling.ensemble_log_probs`.

        `weight` is a factor of their loss: less than 1 after phases that did harm. With `own`, the student's
        evaluation, a sample that they take for a class on which they are ahead of it counts more, in full from an
        `advantage` in recall of so much on, and one that they take for another not at all.

        With `prior`, the log class frequencies that the student's logits carry, shape (classes,), the ensemble's
        logits carry it too, and its loss is that of `kuber.learning.ensembling.surer_teacher_loss`.

        A teacher that fails is left out with a warning. If its logits are invalid, `refuse` is called with its record
        and the reason, and with `slow=True` if it took too long. `check` is that of the training, whose first batch
        may be one of an earlier phase.
        """
        self._members = list(teachers)
        self._classes = classes
        self.temperature = temperature
        self._sharpness = sharpness
        self.weight = weight
        self._own = own
        self._advantage = advantage
        self._prior = prior
        self._shares: tuple[int, Tensor | None] | None = None  # of how many teachers
        self._refuse = refuse
        self._check = check or BatchCheck()
        for graph in (graph_of(teacher.network) for teacher in self._members):
            if graph is not None:
                graph.begin_phase()
        self.used: list[Knowledge] = []  # records of the teachers that have returned logits, in order of first use

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return self._members[place]

    def __str__(self) -> str:
        count = len(self._members)
        if not count:
            return "no teachers"
        return f"{count} teacher{'s' if count > 1 else ''}: {', '.join(map(str, self._members))}"

    def __repr__(self) -> str:
        return f"<Teachers: {self}>"

    def __call__(self, x: Inputs) -> Tensor:
        """Return the ensemble's logits for a batch, shape (batch, classes), without gradient.

        `x` is what the model takes: a tensor, a tuple for `model(*x)`, or a dict for `model(**x)`. Soften the logits
        with `temperature`. A teacher's weight for a sample follows from its recall on the classes it predicts there.
        The logit of a class that no teacher knows is minus infinity, which `kuber.losses.distillation_loss` leaves
        out; without teachers all logits are.
        """
        return self.log_probs(x) * self.temperature

    def loss(self, student: Any, x: Inputs, labels: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
        """Return the loss to add to the student's loss on the labels: a scalar; 0 without teachers.

        `student` are the student's logits for the batch `x`, shape (batch, classes), or an output that has them. For
        two classes they may be one logit a sample. `labels` are what `cross_entropy` takes: class indices, shape
        (batch,), or probabilities, shape (batch, classes), as of mixup and smoothed labels. The label is known, so
        the loss is about the other classes: `kuber.losses.guide_loss`. Where the model carries the owner's class
        frequencies, it is about the samples whose label the teachers are surer of than the model.

        Raises SettingsError when the first batch cannot be used, teachers or not. A later one gets 0 and a warning.
        """
        if not self._members and self._check.passed:
            return self._nothing(student)
        batch = self._check.batch(student, x, labels, classes=self._classes, ignore_index=ignore_index)
        if batch is None or not self._members:
            return self._nothing(student)
        logits, inputs, labels = batch
        log_probs = self.log_probs(to_device(inputs, logits.device))
        if not self._members:
            return self._nothing(student)
        if self._prior is not None:
            loss = surer_teacher_loss(logits, log_probs * self.temperature, labels, ignore_index=ignore_index)
        else:
            loss = guide_loss(
                logits,
                log_probs,
                labels,
                temperature=self.temperature,
                ignore_index=ignore_index,
                shares=self._shares_on(logits.device),
            )
        return loss if self.weight == 1.0 else self.weight * loss

    def log_probs(self, x: Inputs) -> Tensor:
        """Return the ensemble's log-probabilities for a batch, softened by `temperature`: shape (batch, classes)."""
        x = model_inputs(x)
        outputs, competences = [], []
        for teacher in list(self._members):
            try:
                logits, recalls = self._answer(teacher, x)
            except KnowledgeError as error:
                self._leave_out(teacher, error.message)
                self._refuse_record(teacher.knowledge, error)
                continue
            except Exception as error:  # noqa: BLE001 - a network of others may raise anything, also for want of memory
                self._leave_out(teacher, f"It raises {type(error).__name__}: {first_line(error)}")
                continue
            outputs.append(logits)
            competences.append(recalls)
            if teacher.knowledge not in self.used:
                self.used.append(teacher.knowledge)
        if not outputs:
            return torch.full((batch_size(x), self._classes), -torch.inf, device=tensors_in(x)[0].device)
        with torch.no_grad():
            found = ensemble_log_probs(outputs, competences, temperature=self.temperature, sharpness=self._sharpness)
            return (
                found if self._prior is None else F.log_softmax(found + self._prior.to(found) / self.temperature, 1)
            )

    def _shares_on(self, device: torch.device) -> Tensor | None:
        """Return the share of its weight that the guidance of the teachers that are left has for each class."""
        if self._own is None:
            return None
        count = len(self._members)
        if self._shares is None or self._shares[0] != count:
            ahead = [advantages(teacher.evaluation, self._own) for teacher in self._members]
            shares = guidance_shares(ahead, self._advantage)
            self._shares = count, None if shares is None else torch.tensor(shares)
        found = self._shares[1]
        return None if found is None else found.to(device)

    def _answer(self, teacher: Teacher, x: Inputs) -> tuple[Tensor, Tensor]:
        """Return a teacher's logits and its recall on each class; the owner's modes, autocast and draws are kept."""
        network, samples = teacher.network, batch_size(x)
        graph = any(isinstance(module, OnnxModel) for module in network.modules())
        dtype = torch.float32 if graph else floating_dtype(network)  # an owner's own network, swapped, decides itself
        with evaluation_mode(network):
            output = call_model(network, as_floating(x, dtype))
        try:
            logits = logits_from(output, classes=self._classes, samples=samples).detach()
        except SettingsError as error:
            raise IncompatibleKnowledgeError(error.message) from None
        if not has_valid_logits(logits):
            raise CorruptKnowledgeError("It returns logits that are not finite.")
        recalls = torch.tensor([recall or 0.0 for recall in teacher.evaluation.recalls], device=logits.device)
        if len(recalls) != self._classes:
            raise IncompatibleKnowledgeError(f"Its evaluation has {len(recalls)} classes, not {self._classes}.")
        return logits if teacher.shift is None else logits + teacher.shift.to(logits), recalls

    def _leave_out(self, teacher: Teacher, reason: str) -> None:
        self._members.remove(teacher)
        log.warning("The teacher %s (%s) is left out: %s", teacher, teacher.knowledge.id, reason)

    def _refuse_record(self, knowledge: Knowledge, failure: KnowledgeError) -> None:
        try:
            self._refuse(
                knowledge, failure.message, **({"slow": True} if isinstance(failure, TimeLimitError) else {})
            )
        except Exception as error:  # noqa: BLE001 - such as a full disk, which must not end the owner's training
            log.warning("That %s was refused is not kept: %s", knowledge.id, first_line(error))

    def _nothing(self, student: Any) -> Tensor:
        """Return 0 on the student's device, without gradient."""
        try:
            logits = student if isinstance(student, Tensor) else logits_from(student, classes=self._classes)
        except SettingsError:
            return torch.zeros(())
        return logits.new_zeros(())
