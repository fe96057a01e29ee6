"""Ensembles of frozen teachers, and the losses of a student that learns from one during its local phase."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ensemble_log_probs(
    logits: Sequence[Tensor], recalls: Sequence[Tensor], *, temperature: float, sharpness: float
) -> Tensor:
    """Return the log-probabilities of an ensemble of teachers, softened by `temperature`: shape (samples, classes).

    `logits` has one tensor for each teacher, shape (samples, classes); `recalls` its recall on each class, shape
    (classes,). The softened probabilities are averaged. The weight of a teacher for a sample is its expected recall,
    given its own prediction for that sample, to the power of `sharpness`.

    The logit of a class that a teacher does not know is minus infinity. Such a class is averaged over the teachers
    that know it, and stays at minus infinity where none does.
    """
    stacked = torch.stack(tuple(logits))
    predicted = stacked.softmax(2)
    known_recalls = torch.stack(tuple(recalls)).to(stacked)
    competence = torch.einsum("ksc,kc->ks", predicted, known_recalls).clamp_min(1e-6) ** sharpness
    weights = competence / competence.sum(0)
    softened = F.log_softmax(stacked / temperature, dim=2)
    log_weights = weights.log().unsqueeze(2)
    mixture = torch.logsumexp(softened + log_weights, dim=0)
    unknown = torch.isneginf(stacked)
    if not unknown.any():
        return mixture
    unknown_to_all = unknown.all(0)
    log_weight_of_class = torch.logsumexp(log_weights.expand_as(stacked).masked_fill(unknown, -torch.inf), dim=0)
    return F.log_softmax((mixture - log_weight_of_class).masked_fill(unknown_to_all, -torch.inf), dim=1)


def not_true_distillation(
    student_logits: Tensor, teacher_log_probs: Tensor, labels: Tensor, *, temperature: float
) -> Tensor:
    """Return T² * KL(teacher || student) over the classes other than each sample's own, both softened by T.

    The label is known, so the teacher adds information about the other classes only: Lee et al. (FedNTD), arXiv
    2106.03097, equation 4. `student_logits` and `teacher_log_probs`, which are softened by T already, have shape
    (batch, classes); `labels` have shape (batch,). The result is the mean over the batch.
    """
    others = torch.ones_like(student_logits, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), False)
    shape = len(student_logits), student_logits.shape[1] - 1
    # Softening shrinks gradients by 1/T²; restore their scale against the loss on the labels.
    return temperature**2 * masked_kl(
        student_logits[others].view(shape) / temperature, teacher_log_probs[others].view(shape)
    )


def guide_loss(student_logits: Tensor, teacher_log_probs: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Return `not_true_distillation`; with two classes, T² * KL(teacher || student) over both.

    A distribution over the one other class is constant, so with two classes the whole distributions are compared.
    """
    if student_logits.shape[1] > 2:
        return not_true_distillation(student_logits, teacher_log_probs, labels, temperature=temperature)
    return temperature**2 * masked_kl(student_logits / temperature, teacher_log_probs)


def masked_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return KL(teacher || student), mean over the batch, over the classes that the teacher knows.

    Both have shape (batch, classes) and are softened already. The teacher's logit of an unknown class is minus
    infinity. A row in which no class is known adds 0.
    """
    unknown = torch.isneginf(teacher_logits)
    empty_row = unknown.all(1, keepdim=True)
    left_out = unknown & ~empty_row
    student = F.log_softmax(student_logits.masked_fill(left_out, -torch.inf), dim=1).masked_fill(unknown, 0.0)
    teacher = F.log_softmax(teacher_logits, dim=1).masked_fill(unknown, 0.0)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
