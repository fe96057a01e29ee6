"""Prior of an owner's model: the class frequencies of the training samples, and which ones its logits carry."""

from collections.abc import Sequence
from dataclasses import dataclass

from kuber.domain.knowledge import CarriedPrior
from kuber.domain.prior import Frequencies, frequencies, uniform


@dataclass(kw_only=True, slots=True)
class OwnPrior:
    """Class counts of the training samples, where the owner states them, and the prior that the logits carry.

    `fit` knows both, and changes them.
    """

    classes: int
    class_counts: Sequence[float] | None
    carried: CarriedPrior | None  # None if unknown

    @property
    def own(self) -> Frequencies | None:
        """Class frequencies of the training samples; None where the owner does not state them."""
        return frequencies(self.class_counts) if self.class_counts is not None and any(self.class_counts) else None

    @property
    def of_logits(self) -> Frequencies | None:
        """Class frequencies that the logits carry; None if unknown."""
        return uniform(self.classes) if self.carried == "uniform" else (self.own if self.carried == "own" else None)
