"""Adjustment of a teacher's logits to the prior of the student, which is guided by them."""

from collections.abc import Sequence

from torch import Tensor

from kuber.domain.knowledge import Draft
from kuber.domain.prior import Frequencies, uniform
from kuber.domain.stated_prior import stated_prior
from kuber.learning.priors import log_ratio


def answer_shift(record: Draft, labels: Sequence[str], student: Frequencies | None) -> Tensor | None:
    """Return what to add to a teacher's logits over the student's `labels`, shape (classes,); None for nothing.

    The teacher's own prior is taken out, as far as its record states it, and that of the student put in its place: a
    student whose loss trains logits with its own prior is then guided to the same prior. Without one (None) it is the
    uniform prior. Logits of a teacher whose prior is unknown stay as they are.
    """
    carried = stated_prior(record)
    if carried is None:
        return None
    target = student or uniform(len(labels))
    place = {label: at for at, label in enumerate(record.task.labels)}
    # A class that the teacher does not know has a logit of minus infinity, whatever is added.
    shares = [carried[place[label]] if label in place else share for label, share in zip(labels, target, strict=True)]
    shift = log_ratio(tuple(shares), target)
    return shift if shift.any() else None
