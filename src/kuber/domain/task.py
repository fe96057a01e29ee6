"""Task: labels, input shape and common test set."""

from dataclasses import dataclass

from kuber.domain.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A classification task. Raises ValueError for fewer than two labels, repeated labels or an empty shape.

    Entities of one task need not have the same labels: labels are matched by text, never by position.
    """

    name: str
    labels: tuple[str, ...]  # ordered: logit i belongs to labels[i]
    input_shape: tuple[int, ...]  # of one sample, channels first
    test_set: Digest | None = None  # digest of the common test set, if there is one

    def __post_init__(self) -> None:
        # Tasks are compared and hashed, so lists become tuples.
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if not self.name:
            raise ValueError("a task needs a name")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError("a task needs at least two labels, all different")
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError("a task's input shape is one or more positive lengths")

    def __repr__(self) -> str:
        test_set = self.test_set or "none"
        return f"<Task {self.name!r}: {self.classes} classes, samples {self.input_shape}, common test set {test_set}>"

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.labels)

    def understands(self, other: "Task") -> bool:
        """Return whether a model for the other task can be a teacher for this one.

        It must take the same samples. With a common test set both need the same labels, since claims are compared on
        it; without one they must share at least two labels.
        """
        if (self.name, self.input_shape, self.test_set) != (other.name, other.input_shape, other.test_set):
            return False
        if self.test_set is not None:
            return self.labels == other.labels
        return len(set(self.labels) & set(other.labels)) >= 2
