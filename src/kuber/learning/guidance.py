"""Frozen teachers that speak during a local phase: how several are combined, and how the student listens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def combined(
    spoken: Sequence[Tensor], competences: Sequence[Tensor], *, temperature: float, sharpness: float
) -> Tensor:
    """What several teachers say together about each sample, as log-probabilities softened by `temperature`.

    `spoken` are the logits of each teacher, shape (samples, classes); `competences` its recall on each class, shape
    (classes,). A teacher counts, for each sample, as its expected recall under its own belief about that sample,
    to the power of `sharpness`; the softened probabilities are averaged with these weights.
    """
    logits = torch.stack(tuple(spoken))
    believed = logits.softmax(2)
    recalls = torch.stack(tuple(competences)).to(logits)
    competent = torch.einsum("ksc,kc->ks", believed, recalls).clamp_min(1e-6) ** sharpness
    weights = competent / competent.sum(0)
    softened = F.log_softmax(logits / temperature, dim=2)
    return torch.logsumexp(softened + weights.log().unsqueeze(2), dim=0)


def not_true_distillation(student: Tensor, spoken: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """T² * KL(teacher || student) over the classes other than each sample's own, both softened by T.

    The label is known, so the teacher is heard about the other classes only: Lee et al. (FedNTD), arXiv 2106.03097,
    equation 4. `student` are logits and `spoken` log-probabilities softened by T, of shape (batch, classes); `labels`
    have shape (batch,). The result is the mean over the batch.
    """
    others = torch.ones_like(student, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), False)
    shape = len(student), student.shape[1] - 1
    heard = F.log_softmax(student[others].view(shape) / temperature, dim=1)
    said = F.log_softmax(spoken[others].view(shape), dim=1)
    # Softening shrinks gradients by 1/T²; restore their scale against the loss on the labels.
    return temperature**2 * F.kl_div(heard, said, reduction="batchmean", log_target=True)
