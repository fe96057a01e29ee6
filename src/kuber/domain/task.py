"""What is predicted, and on which samples decisions are made."""

from dataclasses import dataclass

from kuber.domain.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A classification task. Raises ValueError on fewer than two labels, repeated labels or an empty shape."""

    name: str
    labels: tuple[str, ...]  # ordered: logit i speaks about labels[i]
    input_shape: tuple[int, ...]  # of one sample, channels first
    test_set: Digest  # of the common test set

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a task needs a name")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError("a task needs at least two labels, each of its own")
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError("a task's input shape is one or more positive lengths")

    @property
    def classes(self) -> int:
        return len(self.labels)
