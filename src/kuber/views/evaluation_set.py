"""Test sets behind the figures of records, and whether these can be compared."""

from collections.abc import Iterable

from kuber.domain.evaluation import Evaluation
from kuber.domain.evaluation_set import SMALLEST_CELL
from kuber.domain.knowledge import Knowledge
from kuber.views.formatting import percent

COMMON = "common"
SHORT = 6  # digits of a digest that are shown

_SIZES = {
    "all": "{size:,} samples",
    "partial": f"{{size:,}} samples of classes with at least {SMALLEST_CELL}",
    "pooled": f"{{size:,}} samples of classes with fewer than {SMALLEST_CELL}, which are not shown",
    "withheld": f"fewer than {SMALLEST_CELL} samples",
}


def set_name(record: Knowledge) -> str:
    """Return a short name of the set that a record is ranked by."""
    return COMMON if record.task.test_set is not None else record.trusted.test_set.hex[:SHORT]


def describe_set(record: Knowledge) -> str:
    """Describe the set that a record was evaluated on: whose, size, first day, and digest."""
    size = sum(record.evaluation.total)
    if record.task.test_set is not None:
        return f"the common test set, {size:,} samples"
    own = record.evaluation_set
    samples = _SIZES["all" if own is None else own.cells].format(size=size)
    since = "" if own is None else f", since {own.since}"
    return f"its publisher's own data, {samples}{since}, set {set_name(record)}"


def claimed(record: Knowledge) -> str:
    """Format the accuracy that a publisher claims; "-" if it states none."""
    return "-" if record.claimed_accuracy is None else percent(record.claimed_accuracy)


def ranked_by(record: Knowledge) -> str:
    """Format the accuracy that a record is ranked by, verified or else claimed; "-" if there is none."""
    return claimed(record) if record.trusted is record.evaluation else percent(record.trusted.accuracy)


def has_classes(record: Knowledge) -> bool:
    """Whether the claim states counts of each class."""
    return record.evaluation_set is None or record.evaluation_set.cells in ("all", "partial")


def class_recalls(record: Knowledge) -> list[float | None]:
    """Return the claimed recall of each class; None for those that are not shown."""
    return list(record.evaluation.recalls) if has_classes(record) else [None] * record.task.classes


def shown_evaluation(record: Knowledge) -> Evaluation | None:
    """Return the evaluation whose classes can be shown: verified or else claimed; None if it is not by class."""
    return record.trusted if record.trusted is not record.evaluation or has_classes(record) else None


def comparison_note(sets: Iterable[str]) -> str:
    """Return a sentence if accuracies listed together are of several sets, given the name of the set of each."""
    count = len(set(sets))
    if count < 2:
        return ""
    return f"These figures are of {count} different validation sets, and cannot be compared with each other."
