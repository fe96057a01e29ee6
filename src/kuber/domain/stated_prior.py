"""Prior that the logits of a published model carry, as far as its record states it."""

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
