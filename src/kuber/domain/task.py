"""What is predicted, and on which samples decisions are made."""

from dataclasses import dataclass

from kuber.domain.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A classification task. Raises ValueError on fewer than two labels, repeated labels or an empty shape.

    Entities of one task need not know the same labels: they are matched by their texts, never by their places.
    """

    name: str
    labels: tuple[str, ...]  # ordered: logit i speaks about labels[i]
    input_shape: tuple[int, ...]  # of one sample, channels first
    test_set: Digest | None = None  # of the common test set; None where there is none

    def __post_init__(self) -> None:
        # A list means the same, and a task is compared and hashed.
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        if not self.name:
            raise ValueError("a task needs a name")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError("a task needs at least two labels, each of its own")
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError("a task's input shape is one or more positive lengths")

    def __repr__(self) -> str:
        test_set = self.test_set or "none"
        return f"<Task {self.name!r}: {self.classes} classes, samples {self.input_shape}, common test set {test_set}>"

    @property
    def classes(self) -> int:
        return len(self.labels)

    def understands(self, other: "Task") -> bool:
        """Whether a model for the other task can teach us something about this one.

        It takes the same samples. Where there is a common test set both have the very same labels, since claims are
        compared on it; where there is none they share at least two.
        """
        if (self.name, self.input_shape, self.test_set) != (other.name, other.input_shape, other.test_set):
            return False
        if self.test_set is not None:
            return self.labels == other.labels
        return len(set(self.labels) & set(other.labels)) >= 2
