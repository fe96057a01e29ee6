"""Teachers: frozen models of other entities, combined into an ensemble over the student's labels."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Knowledge
from kuber.errors import KnowledgeError
from kuber.learning.ensembling import ensemble_log_probs, guide_loss
from kuber.learning.evaluation import has_valid_logits

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
        self._classes = len(ours)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (batch, our classes)."""
        logits: Tensor = self.network(x)
        mapped = logits.new_full((len(logits), self._classes), -torch.inf)
        mapped[:, self._ours] = logits[:, self._theirs]
        return mapped


@dataclass(frozen=True, kw_only=True, repr=False)
class Teacher:
    """One teacher: its record, our own evaluation of it, and its network, which returns logits over our labels."""

    knowledge: Knowledge
    evaluation: Evaluation
    network: nn.Module
    name: str | None = None  # of the entity that published it

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
        refuse: Callable[[Knowledge, str], None] = lambda knowledge, reason: None,
    ) -> None:
        """Combine teachers; `temperature` and `sharpness` as in `kuber.learning.ensembling.ensemble_log_probs`.

        A teacher that fails or returns invalid logits is removed, and `refuse` is called with its record and the
        reason.
        """
        self._members = list(teachers)
        self._classes = classes
        self.temperature = temperature
        self._sharpness = sharpness
        self._refuse = refuse
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

    def __call__(self, x: Tensor) -> Tensor:
        """Return the ensemble's logits for a batch, shape (batch, classes), without gradient.

        Soften them with `temperature`. A teacher's weight for a sample follows from its recall on the classes it
        predicts there. The logit of a class that no teacher knows is minus infinity, which
        `kuber.losses.distillation_loss` leaves out; without teachers all logits are.
        """
        return self.log_probs(x) * self.temperature

    def loss(self, student: Tensor, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss to add to the student's loss on the labels: a scalar; 0 without teachers.

        `student` are the student's logits for the batch `x`, shape (batch, classes); `labels` have shape (batch,).
        The label is known, so the loss is about the other classes: `kuber.losses.guide_loss`.
        """
        if not self._members:
            return student.new_zeros(())
        return guide_loss(student, self.log_probs(x), labels, temperature=self.temperature)

    @torch.no_grad()
    def log_probs(self, x: Tensor) -> Tensor:
        """Return the ensemble's log-probabilities for a batch, softened by `temperature`: shape (batch, classes)."""
        outputs, competences = [], []
        for teacher in list(self._members):
            try:
                logits = teacher.network(x).float()
                valid = has_valid_logits(logits)
                reason = "It returns logits that are not finite."
            except KnowledgeError as error:
                valid, reason = False, error.message
            if not valid:
                self._members.remove(teacher)
                log.warning("Knowledge %s is left out: %s", teacher.knowledge.id, reason)
                self._refuse(teacher.knowledge, reason)
                continue
            outputs.append(logits)
            recalls = [recall or 0.0 for recall in teacher.evaluation.recalls]
            competences.append(torch.tensor(recalls, device=logits.device))
            if teacher.knowledge not in self.used:
                self.used.append(teacher.knowledge)
        if not outputs:
            return torch.full((len(x), self._classes), -torch.inf, device=x.device)
        return ensemble_log_probs(outputs, competences, temperature=self.temperature, sharpness=self._sharpness)
