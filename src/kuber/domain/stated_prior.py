"""Prior that the logits of a published model carry, as far as its record states it."""

from statistics import fmean

from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Draft
from kuber.domain.prior import Frequencies, frequencies, uniform


def stated_prior(record: Draft) -> Frequencies | None:
    """Return the prior over the record's labels that its logits carry; None where the record does not say.

    Logits with the publisher's own prior are of use only with its class counts, which it may withhold.
    """
    if record.prior == "uniform":
        return uniform(record.task.classes)
    if record.prior != "own" or not record.class_counts or not any(record.class_counts):
        return None
    return frequencies(record.class_counts)


def is_no_worse_without(plain: Evaluation, without: Evaluation) -> bool:
    """Return whether a teacher's mean recall is no lower without the prior that its record states.

    A statement is trusted so far only: false counts could turn the answers of a model that is good as it is.
    """
    before, after = ([recall for recall in found.recalls if recall is not None] for found in (plain, without))
    return fmean(after) >= fmean(before)
