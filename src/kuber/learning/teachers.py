"""Teachers: several frozen models of others that speak with one voice, in the labels of the student."""

import logging
from collections.abc import Callable, Iterator, Sequence
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
    """A network whose classes are told in the student's order: minus infinity for those that it does not know."""

    def __init__(self, network: nn.Module, *, theirs: Sequence[str], ours: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self._pairs = [(place, theirs.index(label)) for place, label in enumerate(ours) if label in theirs]
        self._classes = len(ours)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch, our classes)."""
        said: Tensor = self.network(x)
        ours, theirs = zip(*self._pairs, strict=True)
        told = said.new_full((len(said), self._classes), -torch.inf)
        told[:, list(ours)] = said[:, list(theirs)]
        return told


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """One teacher: what was published of it, what we found it to be worth, and its network in our labels."""

    knowledge: Knowledge
    evaluation: Evaluation
    network: nn.Module


class Teachers(Sequence[Teacher]):
    """What an entity found to learn from; empty, and so false, when there is nothing.

    Called with a batch they say together what they think of it: see `__call__`.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher] = (),
        *,
        classes: int,
        temperature: float = 2.0,
        sharpness: float = 2.0,
        refuse: Callable[[Knowledge, str], None] = lambda knowledge, reason: None,
    ) -> None:
        """`temperature` and `sharpness` are those of `kuber.learning.ensembling.combined`.

        A teacher that speaks nonsense is left out from then on, and `refuse` is told why.
        """
        self._members = list(teachers)
        self._classes = classes
        self.temperature = temperature
        self._sharpness = sharpness
        self._refuse = refuse
        self.heard: list[Knowledge] = []  # of those that have spoken, in the order in which they first did

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return self._members[place]

    def __iter__(self) -> Iterator[Teacher]:
        return iter(self._members)

    def __call__(self, x: Tensor) -> Tensor:
        """The teachers' logits for a batch, to be softened with `temperature`: shape (batch, classes), no gradient.

        A teacher counts for a sample by how often it is right about the classes that it believes to see. A class that
        none knows is at minus infinity, which `kuber.losses.distillation_loss` leaves out; so is every class without
        teachers.
        """
        return self.softened(x) * self.temperature

    def loss(self, student: Tensor, x: Tensor, labels: Tensor) -> Tensor:
        """What to add to the loss on the labels, so that the student hears the teachers: a scalar; 0 without any.

        `student` are its logits for the batch `x`, shape (batch, classes), and `labels` have shape (batch,). The
        label is known, so the teachers are heard about the other classes: `kuber.losses.guide_loss`.
        """
        if not self._members:
            return student.new_zeros(())
        return guide_loss(student, self.softened(x), labels, temperature=self.temperature)

    @torch.no_grad()
    def softened(self, x: Tensor) -> Tensor:
        """The same as log-probabilities, softened already."""
        spoken, competences = [], []
        for teacher in list(self._members):
            try:
                said = teacher.network(x).float()
                sound = has_valid_logits(said)
                reason = "It answers with values that are not finite."
            except KnowledgeError as error:
                sound, reason = False, error.message
            if not sound:
                self._members.remove(teacher)
                log.warning("Knowledge %s is left out: %s", teacher.knowledge.id, reason)
                self._refuse(teacher.knowledge, reason)
                continue
            spoken.append(said)
            recalls = [recall or 0.0 for recall in teacher.evaluation.recalls]
            competences.append(torch.tensor(recalls, device=said.device))
            if teacher.knowledge not in self.heard:
                self.heard.append(teacher.knowledge)
        if not spoken:
            return torch.full((len(x), self._classes), -torch.inf, device=x.device)
        return ensemble_log_probs(spoken, competences, temperature=self.temperature, sharpness=self._sharpness)
