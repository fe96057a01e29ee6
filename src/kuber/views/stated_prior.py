"""Prior that a record states for its logits, in words."""

from kuber.domain.knowledge import Draft


def describe_prior(record: Draft) -> str | None:
    """Describe the class frequencies that the logits carry; None if the record states none."""
    match record.prior:
        case "uniform":
            return "uniform, equal class frequencies"
        case "own":
            withheld = "" if record.class_counts else ", which are not disclosed"
            return f"own, the class frequencies of its training samples{withheld}"
        case None:
            return None
