"""Outcome of absorbing knowledge."""

from dataclasses import dataclass

MAX_REASON = 500  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One absorption: student, teachers, method, and the accuracy on the common test set before and after."""

    student: str  # entity id
    teachers: tuple[str, ...]  # knowledge ids
    method: str  # "distil", ...
    round: int  # the student's own
    accuracy_before: float
    accuracy_after: float
    kept: bool
    reason: str | None = None  # why these teachers were chosen: one printable sentence, if the strategy gives one

    def __post_init__(self) -> None:
        if not self.teachers:
            raise ValueError("a delivery has at least one teacher")
        if not (0 <= self.accuracy_before <= 1 and 0 <= self.accuracy_after <= 1):
            raise ValueError("an accuracy is between 0 and 1")
        if self.reason is not None and not (1 <= len(self.reason) <= MAX_REASON and self.reason.isprintable()):
            raise ValueError(f"a reason is 1 to {MAX_REASON} printable characters")
