"""Adjustment of a teacher's logits from the class frequencies of its training samples to equal ones."""

from collections.abc import Sequence

from torch import Tensor

from kuber.domain.knowledge import Draft
from kuber.domain.prior import uniform
from kuber.domain.stated_prior import stated_prior
from kuber.learning.priors import log_ratio


def answer_shift(record: Draft, labels: Sequence[str]) -> Tensor | None:
    """Return what to add to a teacher's logits over the student's `labels`, shape (classes,); None for nothing.

    The teacher's own prior is taken out, as far as its record states it: how frequent a class was among its samples
    says nothing about those of the student. `Teachers` put the student's prior in its place where it is judged by its
    own mixture.
    """
    carried = stated_prior(record)
    if carried is None:
        return None
    place = {label: at for at, label in enumerate(record.task.labels)}
    target = uniform(len(labels))
    # A class that the teacher does not know has a logit of minus infinity, whatever is added.
    shares = [carried[place[label]] if label in place else share for label, share in zip(labels, target, strict=True)]
    shift = log_ratio(tuple(shares), target)
    return shift if shift.count_nonzero() and record.prior != "uniform" else None
