"""Ensembles of frozen teachers, and the losses of a student that learns from one during its local phase."""

from collections.abc import Sequence
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from kuber.learning.labels import IGNORED, known_rows, uniform_labels


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


def mixture_log_probs(logits: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the log of the mean of several models' probabilities, with these shares: shape (samples, classes).

    `logits` has one tensor for each model, shape (samples, classes). The shares sum to 1; models of share 0 are not
    read.
    """
    parts = [
        F.log_softmax(in_full_precision(part), dim=1) + log(share)
        for part, share in zip(logits, shares, strict=True)
        if share > 0
    ]
    return torch.stack(parts).logsumexp(0)


def guidance_shares(advantages: Sequence[Sequence[float]], full: float) -> list[float] | None:
    """Return the share of its weight that the guidance of some teachers has for each class.

    `advantages` are how far each teacher's recall on each class is ahead of the student's; the best one counts. The
    share is 1 at an advantage of `full`, and more beyond; `expected_shares` bounds the mean. None, for all of the
    weight, if `full` is 0 or there is no teacher.
    """
    if not full or not advantages:
        return None
    return [max(ahead) / full for ahead in zip(*advantages, strict=True)]


def not_true_distillation(
    student_logits: Tensor,
    teacher_log_probs: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    ignore_index: int = IGNORED,
    shares: Tensor | None = None,
) -> Tensor:
    """Return T² * KL(teacher || student) over the classes other than each sample's own, both softened by T.

    The label is known, so the teacher adds information about the other classes only: Lee et al. (FedNTD), arXiv
    2106.03097, equation 4. `student_logits` and `teacher_log_probs`, which are softened by T already, have shape
    (batch, classes); `labels` are what `cross_entropy` takes: class indices, shape (batch,), or probabilities, shape
    (batch, classes). The result is the mean over the samples that have a label; 0 if none has.

    With probabilities (mixup, label smoothing) class c is the sample's own with probability t_c, so it is among the
    others with probability 1 - t_c. Both distributions are multiplied by that and normalised again, before they are
    compared: a class is left out as far as its label is known. For one-hot labels it is the loss of class indices,
    to the last bit; with labels that are smoothed by little it differs by little.

    `shares`, shape (classes,), weigh a sample by what the teacher takes it for: its loss is multiplied by the mean
    share of the other classes, under the teacher's distribution over them.
    """
    samples, classes = student_logits.shape
    student, teacher = in_full_precision(student_logits) / temperature, in_full_precision(teacher_log_probs)
    labels = uniform_labels(labels, samples=samples, classes=classes).to(student.device)
    known = known_rows(labels, classes=classes, ignore_index=ignore_index)
    own = labels.argmax(1) if labels.is_floating_point() else labels.clamp(0, classes - 1)
    places = torch.arange(classes - 1, device=student.device).expand(samples, -1)
    places = places + (places >= own.unsqueeze(1))  # (batch, classes - 1): all classes but the own
    weights = None if shares is None else expected_shares(teacher.gather(1, places), shares.to(teacher)[places])
    loss = masked_kl(student.gather(1, places), teacher.gather(1, places), rows=known, weights=weights)
    if labels.is_floating_point():
        others = (1 - labels).clamp_min(0).log()
        weights = None if shares is None else expected_shares(teacher + others, shares.to(teacher))
        floor = torch.finfo(others.dtype).min
        whole = masked_kl(student + others.clamp_min(floor), teacher + others, rows=known, weights=weights)
        certain = ((labels == 0) | (labels == 1)).all() & (labels.sum(1) == 1).all()
        loss = torch.where(certain, loss, whole)
    # Softening shrinks gradients by 1/T²; restore their scale against the loss on the labels.
    return temperature**2 * loss


def guide_loss(
    student_logits: Tensor,
    teacher_log_probs: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    ignore_index: int = IGNORED,
    shares: Tensor | None = None,
    own_class: bool = False,
) -> Tensor:
    """Return `not_true_distillation`; with two classes or `own_class`, T² * KL(teacher || student) over all.

    A distribution over the one other class is constant, so with two classes the whole distributions are compared.
    With `own_class` they are for any number: the teacher also says how sure it is of the label (Hinton et al., arXiv
    1503.02531).
    """
    samples, classes = student_logits.shape
    if classes > 2 and not own_class:
        return not_true_distillation(
            student_logits,
            teacher_log_probs,
            labels,
            temperature=temperature,
            ignore_index=ignore_index,
            shares=shares,
        )
    labels = uniform_labels(labels, samples=samples, classes=classes).to(student_logits.device)
    known = known_rows(labels, classes=classes, ignore_index=ignore_index)
    student, teacher = in_full_precision(student_logits) / temperature, in_full_precision(teacher_log_probs)
    weights = None if shares is None else expected_shares(teacher, shares.to(teacher).expand(samples, -1))
    return temperature**2 * masked_kl(student, teacher, rows=known, weights=weights)


def surer_teacher_loss(
    student_logits: Tensor, teacher_log_probs: Tensor, labels: Tensor, *, ignore_index: int = IGNORED
) -> Tensor:
    """Return KL(teacher || student) over all classes, of the samples whose label the teacher is surer of.

    So the student is never drawn away from a label by a teacher that knows less of the sample; the mean is over all
    samples that have a label. Both carry the same prior; arguments are those of `not_true_distillation`.
    """
    samples, classes = student_logits.shape
    labels = uniform_labels(labels, samples=samples, classes=classes).to(student_logits.device)
    known = known_rows(labels, classes=classes, ignore_index=ignore_index)
    if not labels.is_floating_point():
        labels = F.one_hot(labels.clamp(0, classes - 1), classes)
    student, teacher = in_full_precision(student_logits), in_full_precision(teacher_log_probs)
    ahead = F.log_softmax(teacher, dim=1) - F.log_softmax(student.detach(), dim=1)
    surer = (labels * ahead.masked_fill(labels == 0, 0.0)).sum(1) > 0
    return masked_kl(student, teacher, rows=known, weights=surer.to(student))


def expected_shares(teacher_logits: Tensor, shares: Tensor) -> Tensor:
    """Return the mean share of the classes under the teacher's distribution, 1 at most: shape (samples,)."""
    known = ~torch.isneginf(teacher_logits).all(1, keepdim=True)
    expected = (teacher_logits.masked_fill(~known, 0.0).softmax(1) * shares).sum(1)
    return expected.clamp(max=1.0) * known.squeeze(1)


def masked_kl(
    student_logits: Tensor, teacher_logits: Tensor, rows: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return KL(teacher || student), mean over the batch or its `rows`, over the classes that the teacher knows.

    Both have shape (batch, classes) and are softened already; `rows` are booleans, shape (batch,). The teacher's
    logit of an unknown class is minus infinity. A row in which no class is known adds 0. `weights`, shape (batch,),
    multiply the rows.
    """
    unknown = torch.isneginf(teacher_logits)
    empty_row = unknown.all(1, keepdim=True)
    left_out = unknown & ~empty_row
    student = F.log_softmax(student_logits.masked_fill(left_out, -torch.inf), dim=1).masked_fill(unknown, 0.0)
    teacher = F.log_softmax(teacher_logits, dim=1).masked_fill(unknown, 0.0)
    if weights is not None:
        kept = weights if rows is None else weights * rows
        parts = F.kl_div(student, teacher, reduction="none", log_target=True)
        return (parts.sum(1) * kept).sum() / (len(weights) if rows is None else rows.sum().clamp_min(1))
    if rows is None:
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    parts = F.kl_div(student, teacher, reduction="none", log_target=True).masked_fill(~rows.unsqueeze(1), 0.0)
    return parts.sum() / rows.sum().clamp_min(1)  # not parts[rows], which would make a GPU wait


def in_full_precision(tensor: Tensor) -> Tensor:
    """Return a tensor as float32 unless it is already at least as precise."""
    return tensor.float() if tensor.dtype.itemsize < 4 or not tensor.is_floating_point() else tensor
