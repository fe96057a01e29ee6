"""Losses: balanced softmax for skewed classes, and distillation from a teacher."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kuber.learning.ensembling import in_full_precision, masked_kl
from kuber.learning.labels import IGNORED, known_rows, uniform_labels
from kuber.learning.model_call import logits_from
from kuber.learning.training import Loss, Training


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation(Training):
    """Settings of a training with `distillation_loss`."""

    temperature: float = 4.0  # softens both distributions
    alpha: float = 0.5  # weight of the cross-entropy; 1 - alpha weighs the teacher

    def loss(self, student: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        """Return `distillation_loss` with these settings; the arguments are in the order of a batch."""
        return distillation_loss(student, teacher, labels, temperature=self.temperature, alpha=self.alpha)


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 2.0,
    alpha: float = 0.5,
    ignore_index: int = IGNORED,
) -> Tensor:
    """Return alpha * CE(student, labels) + (1 - alpha) * T² * KL(teacher || student), both softened by T in KL.

    Logits have shape (batch, classes), the student's for two classes also (batch,) or (batch, 1). Labels are what
    `cross_entropy` takes: class indices, shape (batch,), or probabilities, shape (batch, classes). The result is the
    mean over the samples that have a label. Hinton et al., arXiv 1503.02531, section 2. Classes that the teacher does
    not know, with a logit of minus infinity, are left out of KL. Without labels the result is
    T² * KL alone, unweighted, over all samples.
    """
    teacher = in_full_precision(teacher)
    student = in_full_precision(logits_from(student, classes=teacher.shape[1]))
    if labels is None:
        return temperature**2 * masked_kl(student / temperature, teacher / temperature)
    samples, classes = student.shape
    labels = uniform_labels(labels, samples=samples, classes=classes).to(student.device)
    known = known_rows(labels, classes=classes, ignore_index=ignore_index)
    soft = masked_kl(student / temperature, teacher / temperature, rows=known)
    hard = F.cross_entropy(student, labels, ignore_index=ignore_index, reduction="sum") / known.sum().clamp_min(1)
    # Softening shrinks gradients by 1/T²; restore their scale against the hard loss.
    return alpha * hard + (1 - alpha) * temperature**2 * soft


def balanced_softmax(counts: Tensor) -> Loss:
    """Return a loss: cross-entropy of logits shifted by each class's log frequency, so that rare classes count.

    `counts`, shape (classes,), are those of the training samples. The network learns as if all classes were equally
    frequent: Ren et al., arXiv 2007.10740, equation 4. A class without samples has frequency zero and is left out of
    the softmax, so nothing pushes its logit down.
    """
    shift = torch.log(counts.float() / counts.sum())
    absent = torch.isneginf(shift)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        samples, classes = logits.shape
        uniform = uniform_labels(labels, samples=samples, classes=classes)
        if not uniform.is_floating_point():
            return F.cross_entropy(logits + shift, uniform)
        # cross_entropy multiplies a probability of 0 with the infinite loss of an absent class.
        log_probs = F.log_softmax(logits + shift, dim=1).masked_fill(absent, 0.0)
        return -(uniform * log_probs).sum(1).mean()

    return loss
