"""Frozen teachers that speak during a local phase: how several are combined, and how the student listens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ensemble_log_probs(
    spoken: Sequence[Tensor], competences: Sequence[Tensor], *, temperature: float, sharpness: float
) -> Tensor:
    """What several teachers say together about each sample, as log-probabilities softened by `temperature`.

    `spoken` are the logits of each teacher, shape (samples, classes); `competences` its recall on each class, shape
    (classes,). A teacher counts, for each sample, as its expected recall under its own belief about that sample,
    to the power of `sharpness`; the softened probabilities are averaged with these weights.

    A teacher says minus infinity of a class that it does not know. Such a class is averaged over those who know it,
    and remains at minus infinity where nobody does.
    """
    logits = torch.stack(tuple(spoken))
    believed = logits.softmax(2)
    recalls = torch.stack(tuple(competences)).to(logits)
    competent = torch.einsum("ksc,kc->ks", believed, recalls).clamp_min(1e-6) ** sharpness
    weights = competent / competent.sum(0)
    softened = F.log_softmax(logits / temperature, dim=2)
    shares = weights.log().unsqueeze(2)
    heard = torch.logsumexp(softened + shares, dim=0)
    unknown = torch.isneginf(logits)
    if not unknown.any():
        return heard
    nobody = unknown.all(0)
    speaking = torch.logsumexp(shares.expand_as(logits).masked_fill(unknown, -torch.inf), dim=0)
    return F.log_softmax((heard - speaking).masked_fill(nobody, -torch.inf), dim=1)


def not_true_distillation(student: Tensor, spoken: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """T² * KL(teacher || student) over the classes other than each sample's own, both softened by T.

    The label is known, so the teacher is heard about the other classes only: Lee et al. (FedNTD), arXiv 2106.03097,
    equation 4. `student` are logits and `spoken` log-probabilities softened by T, of shape (batch, classes); `labels`
    have shape (batch,). The result is the mean over the batch.
    """
    others = torch.ones_like(student, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), False)
    shape = len(student), student.shape[1] - 1
    # Softening shrinks gradients by 1/T²; restore their scale against the loss on the labels.
    return temperature**2 * masked_kl(student[others].view(shape) / temperature, spoken[others].view(shape))


def guide_loss(student: Tensor, spoken: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """What a student makes of guides: `not_true_distillation`; where there are two classes, all that they say.

    Of one other class there is nothing to say, so with two the whole distributions are compared.
    """
    if student.shape[1] > 2:
        return not_true_distillation(student, spoken, labels, temperature=temperature)
    return temperature**2 * masked_kl(student / temperature, spoken)


def masked_kl(student: Tensor, spoken: Tensor) -> Tensor:
    """KL(teacher || student), mean over the batch, over the classes that the teacher does not put at minus infinity.

    Both are logits of shape (batch, classes), softened already. A row in which nothing is known adds nothing.
    """
    unknown = torch.isneginf(spoken)
    silent = unknown.all(1, keepdim=True)
    left_out = unknown & ~silent
    heard = F.log_softmax(student.masked_fill(left_out, -torch.inf), dim=1).masked_fill(unknown, 0.0)
    said = F.log_softmax(spoken, dim=1).masked_fill(unknown, 0.0)
    return F.kl_div(heard, said, reduction="batchmean", log_target=True)
