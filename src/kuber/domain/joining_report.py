"""Report on joining: a model that trained alone against one that trained with others, on the same samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from kuber.domain.evaluation import Evaluation
from kuber.domain.printable_text import printable
from kuber.domain.significance import paired_counts

Z = 1.96  # of a normal distribution: 95 % are within
LABEL = 22  # columns


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRow:
    """One figure of both models, 0 to 1, with the difference and its 95 % interval."""

    label: str
    samples: int
    alone: float
    joined: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Figure of the model that trained with others, less that of the other."""
        return self.joined - self.alone


@dataclass(frozen=True, kw_only=True, slots=True)
class JoiningReport:
    """Figures of a model that trained alone and of one that trained with others, after so many rounds of each.

    `print` shows a table; `as_dict` returns JSON values. Classes without samples are left out.
    """

    rounds: int
    accuracy: ReportRow
    balanced: ReportRow  # mean recall of the classes
    classes: tuple[ReportRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "rounds": self.rounds,
            "accuracy": _as_dict(self.accuracy),
            "balanced": _as_dict(self.balanced),
            "classes": [_as_dict(row) for row in self.classes],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "JoiningReport":
        """Return the report with these JSON values. Raises KeyError or TypeError for others."""
        rows = [fields["accuracy"], fields["balanced"], *fields["classes"]]
        made = [ReportRow(**{name: value for name, value in row.items() if name != "difference"}) for row in rows]
        return cls(rounds=fields["rounds"], accuracy=made[0], balanced=made[1], classes=tuple(made[2:]))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        rounds = f"{self.rounds} round{'' if self.rounds == 1 else 's'}"
        yield f"Alone and with KUber after {rounds}, on {self.accuracy.samples} samples of your own:"
        yield f"{'':{LABEL}} {'samples':>7} {'alone':>6} {'KUber':>6} {'change':>7}  95 % interval"
        for row in (self.accuracy, self.balanced, *self.classes):
            label = printable(row.label)
            label = label if len(label) <= LABEL else label[: LABEL - 1] + "…"
            yield (
                f"{label:{LABEL}} {row.samples:>7} {100 * row.alone:>6.1f} {100 * row.joined:>6.1f} "
                f"{100 * row.difference:>+7.1f}  {100 * row.low:+.1f} to {100 * row.high:+.1f}"
            )


def joining_report(alone: Evaluation, joined: Evaluation, labels: Sequence[str], *, rounds: int) -> JoiningReport:
    """Compare two models on the same samples, by the answers in which they differ.

    Intervals of differences are those of Agresti and Min (Statistics in Medicine 24, 2005) for matched pairs: half a
    sample is added to each of the four counts, so that few samples give a wide interval and not none. Raises
    ValueError unless both evaluations are on one set, with the answers.
    """
    pairs = paired_counts(alone, joined)
    if pairs is None:
        raise ValueError("a report needs the answers of both models to the same samples")
    rows = []
    for label, before, after, pair in zip(labels, alone.recalls, joined.recalls, pairs, strict=True):
        if before is not None and after is not None:
            low, high = _interval(pair.total, pair.gained, pair.lost)
            rows.append(ReportRow(label=label, samples=pair.total, alone=before, joined=after, low=low, high=high))
    samples = sum(joined.total)
    low, high = _interval(samples, sum(pair.gained for pair in pairs), sum(pair.lost for pair in pairs))
    accuracy = ReportRow(
        label="accuracy", samples=samples, alone=alone.accuracy, joined=joined.accuracy, low=low, high=high
    )
    return JoiningReport(rounds=rounds, accuracy=accuracy, balanced=_balanced(rows, samples), classes=tuple(rows))


def _interval(total: int, gained: int, lost: int) -> tuple[float, float]:
    """Return the 95 % interval of (gained - lost) / total."""
    size, difference = total + 2, gained - lost
    error = Z * sqrt(gained + lost + 1 - difference**2 / size) / size
    return max(-1.0, difference / size - error), min(1.0, difference / size + error)


def _balanced(rows: Sequence[ReportRow], samples: int) -> ReportRow:
    """Return the mean over the classes; the squares of their errors add up."""
    classes = len(rows)
    difference = sum(row.difference for row in rows) / classes
    error = sqrt(sum(((row.high - row.low) / 2) ** 2 for row in rows)) / classes
    return ReportRow(
        label="balanced accuracy",
        samples=samples,
        alone=sum(row.alone for row in rows) / classes,
        joined=sum(row.joined for row in rows) / classes,
        low=max(-1.0, difference - error),
        high=min(1.0, difference + error),
    )


def _as_dict(row: ReportRow) -> dict[str, Any]:
    return asdict(row) | {"difference": row.difference}
