"""Task: labels, input shape and common test set."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from kuber.domain.digest import Digest
from kuber.domain.whole_numbers import LIMIT, whole_number
from kuber.errors import TaskError

# Limits of messages, checked here so that a task fails where it is made and not at its first publication.
MAX_TEXT = 200  # characters of a name or a label
MAX_LABELS = 100_000
MAX_DIMENSIONS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A classification task.

    Labels may be any sequence of texts or whole numbers, also of numpy or torch, or a dictionary between them and
    their places; whole numbers become texts. Raises TaskError, a ValueError, for fewer than two labels, repeated or
    unprintable ones, and for an impossible shape.

    Entities of one task need not have the same labels: labels are matched by text, never by position.
    """

    name: str
    labels: tuple[str, ...]  # ordered: logit i belongs to labels[i]
    input_shape: tuple[int, ...]  # of one sample, channels first
    test_set: Digest | None = None  # digest of the common test set, if there is one

    def __post_init__(self) -> None:
        # Tasks are compared and hashed, so lists become tuples.
        object.__setattr__(self, "name", _checked_name(self.name))
        object.__setattr__(self, "labels", _checked_labels(self.labels))
        object.__setattr__(self, "input_shape", _checked_shape(self.input_shape))
        object.__setattr__(self, "test_set", _checked_digest(self.test_set))

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


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TaskError(f"The name of a task is a text, not a {_kind(name)}.")
    if not name:
        raise TaskError("A task needs a name.")
    if len(name) > MAX_TEXT or not name.isprintable():
        raise TaskError(f"The name of a task has at most {MAX_TEXT} characters, all printable.")
    return str(name)


def _checked_labels(labels: Any) -> tuple[str, ...]:
    if isinstance(labels, Mapping):
        labels = _ordered(labels)
    if isinstance(labels, str | bytes | Set) or not isinstance(labels, Iterable):
        raise TaskError(f"The labels of a task are a list of texts, in the order of logits, not a {_kind(labels)}.")
    given = tuple(labels)
    made = given if all(type(label) is str for label in given) else tuple(map(_label, given))
    if len(made) < 2 or len(set(made)) != len(made):
        raise TaskError("A task needs at least two labels, all different.")
    if len(made) > MAX_LABELS:
        raise TaskError(f"A task has at most {MAX_LABELS} labels, not {len(made)}.")
    if not all(made) or max(map(len, made)) > MAX_TEXT or not "".join(made).isprintable():
        raise TaskError(f"The labels of a task have 1 to {MAX_TEXT} characters, all printable.")
    return made


def _ordered(labels: Mapping[Any, Any]) -> list[Any]:
    """Return the labels in a dictionary from labels to places, as of a folder of images, or from places to labels."""
    for pairs in (labels.items(), [(value, key) for key, value in labels.items()]):
        places = {whole_number(place): label for label, place in pairs}
        if len(labels) > 0 and places.keys() == set(range(len(labels))):
            return [places[place] for place in range(len(labels))]
    raise TaskError("The labels of a task in a dictionary need the places 0, 1, 2 and so on; give a list instead.")


def _label(label: Any) -> str:
    if isinstance(label, str):
        return str(label)
    number = None if isinstance(label, float) else whole_number(label)
    if number is None:
        raise TaskError(f"The labels of a task are texts or whole numbers, not a {_kind(label)}.")
    return str(number)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if whole_number(shape) is not None:
        shape = (shape,)
    if isinstance(shape, str | bytes | Set | Mapping) or not isinstance(shape, Iterable):
        raise TaskError(f"The input_shape of a task is a list of lengths, such as (3, 32, 32), not a {_kind(shape)}.")
    lengths = tuple(map(whole_number, shape))
    made = tuple(length for length in lengths if length is not None and 0 < length < LIMIT)
    if not made or len(made) != len(lengths) or len(made) > MAX_DIMENSIONS:
        raise TaskError(f"The input_shape of a task is one or more positive lengths, at most {MAX_DIMENSIONS}.")
    return made


def _checked_digest(digest: Any) -> Digest | None:
    if digest is None or isinstance(digest, Digest):
        return digest
    if isinstance(digest, str):
        try:
            return Digest.parse(digest)
        except ValueError as error:
            raise TaskError(f"The test_set of a task is a digest: {error}.") from None
    raise TaskError(f"The test_set of a task is a digest, as kuber.test_set_digest returns, not a {_kind(digest)}.")


def _kind(value: object) -> str:
    return type(value).__name__
